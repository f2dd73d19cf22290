"""A project in which DVC runs stages while it is open: what they read, and what is new of it."""

import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from dvc.dependency import ParamsDependency
from dvc_data.hashfile.hash import hash_file

from .. import work_tree
from ..errors import ProjectError
from ..pipeline.numbers import flatten
from .at_commits import fill, stages_in
from .definitions import Definitions
from .dvc_repo import errors_reported

_COARSE = 20_000_000  # ns; file times are no finer
_WRITTEN_BY_TOOLS = (".pyc", ".pyo", "__pycache__")
"""What running code leaves beside itself; so does what begins with a dot."""


class Seen(NamedTuple):
    """What a stage reads, as it was when it was looked at."""

    algorithm: str
    value: object
    """The md5, or the params by key; None if it is known to have changed since the stage began."""
    files: Mapping[str, str]
    """The md5s of a folder's files."""


class Project(Definitions):
    """The DVC project around a folder, by default the working directory; raises `ProjectError`."""

    def __init__(self, settings_of: Path | None = None, at: Path | None = None) -> None:
        super().__init__(settings_of, at)
        self._running: Any = None
        self._sources: dict[Path, bytes | None] = {}

    def keep(self) -> None:
        """Remember what the stages are read from, so that the project can be read again."""
        began = time.time_ns()
        self._sources = {file: self._source(file, began) for file in {*self._files_read()}}
        self._read_locks()

    def read_again(self) -> bool:
        """Read what has changed in dvc.lock; return False if anything else has changed.

        A stage that DVC has run has the hashes in dvc.lock again, not those of its files.
        """
        if any(self._source(file) != content for file, content in self._sources.items()):
            return False
        try:
            self._read_locks()
        except ProjectError:  # DVC says what is wrong with a lock
            return False
        self._repo.scm._reset()
        self._running = None
        return True

    def entry(self, name: str) -> object:
        """Return what dvc.lock had of a stage when it was read last, or None."""
        stage = self.dvc_stage(name)
        lock = next(lock for each, lock in self.with_locks() if each is stage)
        return (self.locks or {}).get(lock, {}).get(stage.name)

    def begin_at(self, file: str, name: str) -> str:
        """Return the name of the stage that DVC runs, by its dvc.yaml and its name there.

        From now on its params are those that it reads, not those in dvc.lock.
        """
        with errors_reported():
            named = [s for s in self._repo.index.stages if getattr(s, "name", None) == name]
            for stage in named:
                if os.path.realpath(stage.path) == os.path.realpath(file):
                    self._running = stage
                    for dep in stage.params:
                        work_tree.check(dep.fs_path, self.top)
                        dep.hash_info = dep.get_hash()
                    return self._name(stage)
        raise ProjectError(f"DVC has no stage {name!r} in {file}")

    def holds(self, name: str) -> bool:
        """Whether DVC would not run a stage again: its command, params and inputs are as locked."""
        with errors_reported():
            if (stage := self.dvc_stage(name)) is None:
                return True  # no stage makes it
            changed = getattr(stage, "cmd_changed", False) or stage.always_changed
            return not (changed or any(dep.workspace_status() for dep in stage.deps))

    def is_busy(self) -> bool:
        """Whether DVC holds files of the project, as while it runs a stage."""
        with suppress(OSError):
            rwlock = self.root / ".dvc/tmp/rwlock"
            return b'"pid"' in work_tree.read(rwlock, self.root, of_dvc=True, most=1_000_000)
        return False

    def files_to_keep(self) -> tuple[frozenset[Path], frozenset[Path], list[Path]]:
        """Return what results need from the checkout beside what git tracks, by absolute paths.

        That is what any stage reads, but for the outputs that DVC keeps, which are second and never
        in git; then the outputs that DVC leaves to git, and each dvc.lock.
        """
        outs = self.outs.values()
        others = {Path(out.fs_path) for out in outs if not out.use_cache}
        others |= {self.root / lock for _, lock in self.with_locks()}
        return (
            frozenset(Path(dep.fs_path) for s in self._repo.index.stages for dep in s.deps),
            frozenset(Path(out.fs_path) for out in outs if out.use_cache),
            [path for path in sorted(others) if path.exists() and self.is_inside(path)],
        )

    def is_as_locked(self, name: str) -> bool:
        """Whether the outputs of a stage are those that dvc.lock has: its entry can be an old one.

        DVC has just hashed them, so it does not again.
        """
        with errors_reported():
            outs = self.dvc_stage(name).outs
            return all(out.hash_info and out.hash_info == out.get_hash() for out in outs)

    def inputs(self, name: str, began: int) -> dict[str, Seen]:
        """Return what a stage reads that `began` (in ns) to run, by path.

        DVC remembers the md5s of files, so it does not hash them again. What has changed since then
        is None if DVC knew it before, and else it is left out, as nobody knows what it was.
        """
        found: dict[str, Seen] = {}
        with errors_reported():
            for dep in self.dvc_stage(name).deps:
                if isinstance(dep, ParamsDependency):
                    work_tree.check(dep.fs_path, self.top)
                    changed = _changed_since(Path(dep.fs_path), began)
                    value: object = flatten(dep.get_hash().value or {})
                    if not changed:
                        found[self._path(dep)] = Seen(f"{dep.hash_name}", value, {})
                elif dep.fs.protocol == "local" and dep.exists:
                    _, now = self.hash(dep)
                    before = self._known_before(dep, began)
                    value = now.hash_info.value
                    if any(md5 and _md5(f, dep, self._repo) != md5 for f, md5 in before.items()):
                        value = None
                    if value is None or all(before.values()):
                        found[self._path(dep)] = Seen(now.hash_info.name, value, _files(now))
        return found

    def changed(self, name: str, seen: Mapping[str, Seen]) -> list[str]:
        """Return what has changed of a stage's inputs between a look and the result in dvc.lock."""
        found = []
        with errors_reported():
            for dep in self.dvc_stage(name).deps:
                path, info = self._path(dep), dep.hash_info
                if (was := seen.get(path)) is None or not info:
                    continue
                if isinstance(dep, ParamsDependency):
                    has_changed = flatten(info.value or {}) != was.value
                else:
                    is_other = info.name == was.algorithm and info.value != was.value
                    has_changed = is_other and not self._is_written_by_tools(dep, was)
                found += [path] if has_changed else []
        return found

    def _is_written_by_tools(self, dep: Any, was: Seen) -> bool:
        """Whether a folder differs only by what running code leaves beside itself."""
        now = self.tree(dep) if dep.hash_info.isdir and was.value else None
        if now is None:
            return False
        different = {*_files(now).items()} ^ {*was.files.items()}
        parts = [path.split("/") for path, _ in different]
        return all(any(p[0] == "." or p.endswith(_WRITTEN_BY_TOOLS) for p in own) for own in parts)

    def _read_locks(self) -> None:
        """Give the stages what is in dvc.lock."""
        stages = [*self.with_locks()]
        texts = {lock: self._source(self.root / lock) or b"" for _, lock in stages}
        self.locks = {
            lock: stages_in(text.decode(errors="replace"), lock) for lock, text in texts.items()
        }
        for stage, lock in stages:
            fill(stage, self.locks[lock].get(stage.name), lock)

    def _known_before(self, dep: Any, began: int) -> dict[str, str]:
        """Return the files of an input that changed since then, with the md5s that DVC knew."""
        found, walk = {}, self._repo.dvcignore.walk
        folders = walk(dep.fs, dep.fs_path) if dep.isdir() else [(dep.fs_path, [], [""])]
        for folder, _, names in folders:
            for name in names:
                if _changed_since(file := Path(folder, name), began):
                    entry = json.loads(self._repo.state.hashes.get(str(file)) or "{}")
                    found[str(file)] = entry.get("hash_info", {}).get("md5", "")
        return found

    def _source(self, file: Path, began: int = 0) -> bytes | None:
        r"""Return what a file has, None if it cannot be read; b"\0" if it changed after `began`."""
        if began and _changed_since(file, began):
            return b"\0"
        try:
            return work_tree.read(file, self.top, of_dvc=True)
        except OSError:
            return None

    def _files_read(self) -> Iterator[Path]:
        """Yield the files that decide what the stages are, whether they exist or not."""
        yield from (self.root / name for name in (".dvcignore", ".dvc/config", ".dvc/config.local"))
        with errors_reported():
            index = self._repo.index
            tops = (index._metrics, index._plots, index._params, index._artifacts)
            paths = {*(s.path for s in index.stages), *(p for top in tops for p in top)}
            yield from (Path(path) for path in paths)
            yield from self.template_files()


def _changed_since(file: Path, began: int) -> bool:
    try:
        return file.stat().st_ctime_ns >= began - _COARSE
    except OSError:
        return False


def _md5(file: str, dep: Any, repo: Any) -> str:
    return str(hash_file(file, dep.fs, dep.hash_name, repo.state)[1].value)


def _files(found: Any) -> dict[str, str]:
    """Return the md5s of the files in DVC's list of a folder, by path."""
    is_folder = found.hash_info.isdir
    return {"/".join(key): info.value for key, _, info in found} if is_folder else {}
