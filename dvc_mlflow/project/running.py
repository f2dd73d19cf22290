"""The stage that DVC is running: its inputs, and its result before DVC writes dvc.lock."""

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from dvc.dependency import ParamsDependency
from dvc.dvcfile import Lockfile
from dvc_data.hashfile.hash import hash_file

from ..errors import ProjectError
from ..tables import flatten
from .definitions import Definitions
from .files import SMALL
from .opened import errors_reported, parse


class Checkout(NamedTuple):
    """What a stage's result needs from the checkout, by absolute paths."""

    deps: Sequence[Path]
    """What any stage reads."""
    files: frozenset[Path]
    """DVC's own files: dvc.yaml, .dvc files, settings, and the .gitignore beside outputs."""
    cached: Sequence[Path]
    """The outputs that DVC keeps, which are never in git."""
    uncached: Sequence[Path]
    """The outputs of the stage, and of those upstream, that DVC leaves to git."""
    lock_file: Path
    lock: bytes
    """Its content with the stage's result."""
    small: Mapping[str, Path | bytes]
    """The small outputs that DVC keeps, and the lists of small folders, by md5."""


class Project(Definitions):
    """The DVC project around the working directory; raises `ProjectError`."""

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
            self._running = (same or here)[0]
            for dep in self._running.params:
                dep.hash_info = dep.get_hash()
        return self._name(self._running)

    def inputs(self, began: int = 0, params: str = "") -> dict[str, object]:
        """Return what the running stage reads: md5s by path, and the params' values by file.

        DVC remembers the md5s, so it does not hash the files again. What has changed since the
        stage `began` (in ns) is None, unless its content is what DVC knew before. `params` is the
        text of the params.yaml in the stage's folder when it began, if there was one.
        """
        found: dict[str, object] = {}
        with errors_reported():
            for dep in self._running.deps:
                path = self._path(dep)
                if isinstance(dep, ParamsDependency):
                    own = params and dep.fs_path == str(Path(self._running.wdir, "params.yaml"))
                    text = params if own else Path(dep.fs_path).read_text()
                    values = flatten(parse(text, dep.fs_path) or {})
                    found[path] = {k: v for k, v in values.items() if _is_among(k, dep.params)}
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
        return found

    def finish(self) -> None:
        """Hash the outputs of the running stage, as DVC will do next: it then finds them hashed."""
        with errors_reported():
            for item in (*self._running.outs, *self._running.deps):
                if not isinstance(item, ParamsDependency):
                    known = self._hashed.get(self._path(item))
                    item.meta, item.obj = known or self._hash(item)
                    item.hash_info = item.obj.hash_info
        self._has_finished = True

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
            stage = next(s for s in self._repo.index.stages if s.cmd and self._name(s) == name)
            changed = getattr(stage, "cmd_changed", False) or stage.always_changed
            return not (changed or any(dep.workspace_status() for dep in stage.deps))

    def checkout(self, names: Sequence[str]) -> Checkout:
        """Return what the result of the last of these stages needs from the checkout.

        The others are those upstream.
        """
        repo = self._repo
        with errors_reported():
            own = [s for s in repo.index.stages if s.cmd and self._name(s) in names]
            stage = next(s for s in own if self._name(s) == names[-1])
            outs = [out for s in own for out in s.outs if out.is_in_repo and out.exists]
            files = {Path(s.path) for s in repo.index.stages}
            files |= {Path(out.fs_path).with_name(".gitignore") for out in outs}
            files |= {self.root / path for path in (".dvcignore", ".dvc/config", ".dvc/.gitignore")}
            deps = [dep for s in repo.index.stages for dep in s.deps]
            lock_file = Path(stage.path).with_suffix(".lock")
            return Checkout(
                [Path(dep.fs_path) for dep in deps if dep.fs.protocol == "local"],
                frozenset(files),
                [Path(out.fs_path) for out in repo.index.outs if out.use_cache],
                [Path(out.fs_path) for out in outs if not out.use_cache],
                lock_file,
                self._lock(stage, lock_file),
                _small([out for out in outs if out.use_cache]),
            )

    def _lock(self, stage: Any, file: Path) -> bytes:
        """Return dvc.lock with the result of a running stage, as DVC is about to write it."""
        if not (self._has_finished and stage is self._running):
            return file.read_bytes() if file.exists() else b""
        with TemporaryDirectory() as folder:
            copy = Path(folder, "dvc.lock")
            if file.exists():
                shutil.copyfile(file, copy)
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


def _small(outs: Sequence[Any]) -> dict[str, Path | bytes]:
    """Return the small ones of these outputs by md5; for a folder, its files and their list."""
    found: dict[str, Path | bytes] = {}
    for out in outs:
        if not out.hash_info or out.hash_name != "md5" or (out.meta.size or 0) > SMALL:
            continue
        if not out.hash_info.isdir:
            found[out.hash_info.value] = Path(out.fs_path)
        elif tree := out.obj or out.get_obj():
            found |= {info.value: Path(out.fs_path, *key) for key, _, info in tree}
            found[out.hash_info.value] = tree.as_bytes()
    return {oid: c for oid, c in found.items() if isinstance(c, bytes) or c.is_file()}


def _is_among(key: str, declared: Sequence[str]) -> bool:
    """Whether a stage's params, which are keys or sections, include a key."""
    return not declared or any(key == name or key.startswith(f"{name}.") for name in declared)
