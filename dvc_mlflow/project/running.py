"""The stage that DVC is running: its inputs, and its result before DVC writes dvc.lock."""

import json
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple, cast

from dvc.dependency import ParamsDependency
from dvc.dvcfile import Lockfile
from dvc_data.hashfile.hash import hash_file
from dvc_data.hashfile.hash_info import HashInfo

from ..errors import ProjectError
from ..pipeline.tables import flatten
from . import locks
from .earlier import is_among
from .kept import Kept
from .opened import errors_reported, parse


class Checkout(NamedTuple):
    """What a stage's result needs from the checkout, by absolute paths."""

    deps: frozenset[Path]
    """What any stage reads."""
    folders: frozenset[Path]
    """Where stages run, and where their deps are: scripts there may import undeclared code."""
    files: frozenset[Path]
    """DVC's own files: dvc.yaml, .dvc files, settings, and the .gitignore beside outputs."""
    cached: frozenset[Path]
    """The outputs that DVC keeps, which are never in git."""
    outs: frozenset[Path]
    """All outputs, of any stage."""
    uncached: Sequence[Path]
    """The outputs of the stages that DVC leaves to git."""
    locks: Mapping[Path, bytes]
    """Each dvc.lock with its content, with the result of a stage that has just ended."""


class Project(Kept):
    """The DVC project around a folder, by default the working directory; raises `ProjectError`."""

    @property
    def is_running(self) -> bool:
        """Whether DVC is running a stage, for which this project was opened."""
        return self._running is not None

    def begin(self, address: str, folder: str) -> str:
        """Return the name of the stage that DVC runs in a folder, as `DVC_STAGE` calls it.

        From now on its params are those that it reads, not those in dvc.lock. The address is
        relative to the folder that `dvc` was started in, which only DVC knows.
        """
        file, _, own = address.rpartition(":")
        with errors_reported():
            named = [s for s in self._repo.index.stages if getattr(s, "name", None) == own]
            here = [s for s in named if os.path.realpath(s.wdir) == folder]
            same = [s for s in here if s.path.endswith(file.lstrip("./") or "dvc.yaml")]
            if not (same or here):
                raise ProjectError(f"DVC has no stage {own!r} in {folder}")
            return self._start((same or here)[0])

    def begin_at(self, file: str, name: str) -> str:
        """Return the name of the stage that DVC runs, by its dvc.yaml and its name there.

        From now on its params are those that it reads, not those in dvc.lock.
        """
        with errors_reported():
            named = [s for s in self._repo.index.stages if getattr(s, "name", None) == name]
            for stage in named:
                if os.path.realpath(stage.path) == os.path.realpath(file):
                    return self._start(stage)
        raise ProjectError(f"DVC has no stage {name!r} in {file}")

    def stage_writing(self, paths: Collection[str]) -> tuple[str, str]:
        """Return dvc.yaml and name of the stage with these outputs, or "" twice."""
        with errors_reported():
            for stage in self._repo.index.stages:
                if hasattr(stage, "name") and {out.fs_path for out in stage.outs} == {*paths}:
                    return stage.path, stage.name
        return "", ""

    def _start(self, stage: Any) -> str:
        self._running, self._edited = stage, []
        for dep in stage.params:
            dep.hash_info = dep.get_hash()
        self._forget(stage)
        return self._name(stage)

    def is_as_locked(self, name: str) -> bool:
        """Whether the outputs of a stage are those that dvc.lock has: its entry can be an old one.

        DVC has just hashed them, so it does not again.
        """
        with errors_reported():
            outs = self._dvc_stage(name).outs
            return all(out.hash_info and out.hash_info == out.get_hash() for out in outs)

    def commands(self) -> list[str]:
        """Return the commands of the running stage, each of which DVC gives to a shell."""
        command = self._running.cmd
        return [*command] if isinstance(command, list) else command.splitlines()

    def inputs(self, began: int = 0, params: str = "") -> dict[str, object]:
        """Return what the running stage reads: md5s by path, and the params' values by file.

        DVC remembers the md5s, so it does not hash the files again. With `began` these become what
        the pipeline has of the stage. What has changed since the stage `began` (in ns) is None,
        unless its content is what DVC knew before. `params` is the text of the params.yaml in the
        stage's folder when it began, if there was one.
        """
        found: dict[str, object] = {}
        with errors_reported():
            for dep in self._running.deps:
                path = self._path(dep)
                if isinstance(dep, ParamsDependency):
                    here = str(Path(self._running.wdir, "params.yaml"))
                    is_given = params and dep.fs_path == here
                    text = params if is_given else Path(dep.fs_path).read_text()
                    try:
                        values = flatten(parse(text, dep.fs_path) or {})
                    except ValueError as error:
                        raise ProjectError(f"{path}: {error}") from None
                    own = {k: v for k, v in values.items() if is_among(k, dep.params)}
                    if began and own != flatten(dep.hash_info.value or {}):  # edited since then
                        dep.hash_info = HashInfo(dep.hash_name, cast("Any", own))
                        self._edited.append(dep)
                    found[path] = own
                elif dep.fs.protocol == "local":
                    before = self._known_before(dep, began) if began else {}
                    found[path] = ""
                    if dep.exists:
                        self._hashed[path] = self._hash(dep)
                        found[path] = self._hashed[path][1].hash_info.value
                    locked = dep.hash_info.value if dep.hash_info else None
                    if found[path] != locked and any(
                        hash_file(f, dep.fs, dep.hash_name, self._repo.state)[1].value != md5
                        for f, md5 in before.items()
                    ):
                        found[path] = None
                    elif began and found[path]:
                        dep.hash_info = self._hashed[path][1].hash_info
        if began:
            self._forget(self._running)
        return found

    def md5s_now(self, name: str, paths: Collection[str]) -> set[str]:
        """Return the md5s of those of a stage's deps with these paths that are in the checkout."""
        with errors_reported():
            deps = [dep for dep in self._dvc_stage(name).deps if self._path(dep) in paths]
            return {str(self._hash(dep)[1].hash_info.value) for dep in deps if dep.exists}

    def finish(self) -> None:
        """Hash the outputs of the running stage, as DVC will do next: it then finds them hashed."""
        with errors_reported():
            for item in (*self._running.outs, *self._running.deps):
                if item in self._edited:  # and edited back
                    item.hash_info = item.get_hash()
                elif not isinstance(item, ParamsDependency):
                    known = self._hashed.get(self._path(item))
                    item.meta, item.obj = known or self._hash(item)
                    item.hash_info = item.obj.hash_info
        self._has_finished = True
        self._forget(self._running)

    def _hash(self, item: Any) -> tuple[Any, Any]:
        """Return size and hash of a file or a folder, with the list of its files."""
        odb = item.cache if item.is_in_repo and item.use_cache else item.local_cache
        options = {"ignore": item.dvcignore, "dry_run": not item.use_cache}
        _, meta, found = item._build(
            odb, item.fs_path, item.fs, item.hash_name, no_progress_bar=True, **options
        )
        return meta, found

    def lacks_outputs(self) -> bool:
        """Whether the running stage has not written all its outputs; DVC says which."""
        return not all(out.exists for out in self._running.outs)

    def holds(self, name: str) -> bool:
        """Whether DVC would not run a stage again: its command, params and inputs are as locked."""
        with errors_reported():
            if (stage := self._dvc_stage(name)) is None:
                return True  # no stage makes it
            changed = getattr(stage, "cmd_changed", False) or stage.always_changed
            return not (changed or any(dep.workspace_status() for dep in stage.deps))

    def checkout(self, names: Collection[str]) -> Checkout:
        """Return what the results of these stages need from the checkout."""
        repo = self._repo
        with errors_reported():
            own = [s for s in repo.index.stages if s.cmd and self._name(s) in names]
            outs = [out for s in own for out in s.outs if out.is_in_repo and out.exists]
            outs += self._unmade_outs(names)
            files = {Path(s.path) for s in repo.index.stages}
            files |= {Path(out.fs_path).with_name(".gitignore") for out in outs}
            files |= {self.root / path for path in (".dvcignore", ".dvc/config", ".dvc/.gitignore")}
            deps = {
                Path(dep.fs_path)
                for stage in repo.index.stages
                for dep in stage.deps
                if dep.fs.protocol == "local"
            }
            folders = {dep if dep.is_dir() else dep.parent for dep in deps}
            folders |= {Path(stage.wdir) for stage in repo.index.stages if stage.cmd}
            return Checkout(
                frozenset(deps),
                frozenset(folders),
                frozenset(files),
                frozenset(Path(out.fs_path) for out in repo.index.outs if out.use_cache),
                frozenset(Path(out.fs_path) for out in repo.index.outs),
                [Path(o.fs_path) for o in outs if not o.use_cache and self.is_inside(o.fs_path)],
                dict(self._lock_files()),
            )

    def _lock_files(self) -> Iterator[tuple[Path, bytes]]:
        """Yield each dvc.lock, with the running stage's result as DVC is about to write it."""
        ended = self._running if self._has_finished else None
        paths = {Path(s.path) for s in self._repo.index.stages if s.cmd and hasattr(s, "name")}
        for file in sorted(path.with_suffix(".lock") for path in paths):
            if ended is not None and file == Path(ended.path).with_suffix(".lock"):
                yield file, self._lock(ended, file)
            elif file.exists() and self.is_readable(file):
                yield file, file.read_bytes()

    def _lock(self, stage: Any, file: Path) -> bytes:
        before = file.read_bytes() if file.exists() else b""
        whole = locks.with_entry(before, self._dumped(stage, b"")) if before else None
        return self._dumped(stage, before) if whole is None else whole

    def _dumped(self, stage: Any, before: bytes) -> bytes:
        with TemporaryDirectory() as folder:
            copy = Path(folder, "dvc.lock")
            if before:
                copy.write_bytes(before)
            lock = Lockfile(self._repo, str(copy))
            if hasattr(lock, "dump_stages"):
                lock.dump_stages([stage])
            else:  # DVC 3.49
                lock.dump(stage)
            self._repo.scm_context.files_to_track.clear()
            return copy.read_bytes()

    def _known_before(self, dep: Any, began: int) -> dict[str, str]:
        """Return the files of an input that changed since then, with the md5s that DVC knew."""
        found, walk = {}, self._repo.dvcignore.walk
        folders = walk(dep.fs, dep.fs_path) if dep.isdir() else [(dep.fs_path, [], [""])]
        for folder, _, names in folders:
            for name in names:
                file = Path(folder, name)
                # File times are coarse.
                if file.exists() and file.stat().st_ctime_ns >= began - 20_000_000:
                    entry = json.loads(self._repo.state.hashes.get(str(file)) or "{}")
                    found[str(file)] = entry.get("hash_info", {}).get("md5", "")
        return found
