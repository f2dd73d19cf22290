"""A project in which DVC runs stages while it is open: what they read, and what is new of it."""

import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from dvc.dependency import ParamsDependency
from dvc_data.hashfile.hash import hash_file

from .. import work_tree
from ..errors import ProjectError
from ..pipeline.numbers import flatten
from .at_commits import fill, stages_in
from .definitions import dvc_stage, stages_with_locks, template_files
from .dvc_errors import errors_reported
from .files import hash_of, tree_of
from .project import Project

_COARSE = 20_000_000  # ns; file times are no finer
_WRITTEN_BY_TOOLS = (".pyc", ".pyo", "__pycache__")
"""What running code leaves beside itself; so does what begins with a dot."""


Sources = Mapping[Path, bytes | None]
"""The content of the files that decide what the stages are."""


class Seen(NamedTuple):
    """What a stage reads, as it was when it was looked at."""

    algorithm: str
    value: object
    """The md5, or the params by key; None if it is known to have changed since the stage began."""
    files: Mapping[str, str]
    """The md5s of a folder's files."""


def sources_of(project: Project) -> Sources:
    """Return what the stages are read from, so that the project can be read again."""
    began = time.time_ns()
    found = {file: _source(project, file, began) for file in {*_files_read(project)}}
    _read_locks(project)
    return found


def read_again(project: Project, sources: Sources) -> bool:
    """Read what has changed in dvc.lock; return False if anything else has changed.

    A stage that DVC has run has the hashes in dvc.lock again, not those of its files.
    """
    if any(_source(project, file) != content for file, content in sources.items()):
        return False
    try:
        _read_locks(project)
    except ProjectError:  # DVC says what is wrong with a lock
        return False
    project.repo.scm._reset()
    return True


def entry_of(project: Project, name: str) -> object:
    """Return what dvc.lock had of a stage when it was read last, or None."""
    stage = dvc_stage(project, name)
    lock = next(lock for each, lock in stages_with_locks(project) if each is stage)
    return (project.locks or {}).get(lock, {}).get(stage.name)


def is_as_locked(project: Project, name: str) -> bool:
    """Whether the outputs of a stage are those that dvc.lock has: its entry can be an old one.

    DVC has just hashed them, so it does not again.
    """
    with errors_reported():
        outs = dvc_stage(project, name).outs
        return all(out.hash_info and out.hash_info == out.get_hash() for out in outs)


def inputs_seen(project: Project, name: str, began: int) -> dict[str, Seen]:
    """Return what a stage reads that `began` (in ns) to run, by path.

    DVC remembers the md5s of files, so it does not hash them again. What has changed since then
    is None if DVC knew it before, and else it is left out, as nobody knows what it was.
    """
    found: dict[str, Seen] = {}
    with errors_reported():
        for dep in dvc_stage(project, name).deps:
            if isinstance(dep, ParamsDependency):
                work_tree.check(dep.fs_path, project.top)
                changed = _changed_since(Path(dep.fs_path), began)
                value: object = flatten(dep.get_hash().value or {})
                if not changed:
                    found[project.path_of(dep)] = Seen(f"{dep.hash_name}", value, {})
            elif dep.fs.protocol == "local" and dep.exists:
                now = hash_of(dep)
                before = _known_before(project, dep, began)
                value = now.hash_info.value
                if any(md5 and _md5(f, dep, project.repo) != md5 for f, md5 in before.items()):
                    value = None
                if value is None or all(before.values()):
                    found[project.path_of(dep)] = Seen(now.hash_info.name, value, _files(now))
    return found


def inputs_changed(project: Project, name: str, seen: Mapping[str, Seen]) -> list[str]:
    """Return what has changed of a stage's inputs between a look and the result in dvc.lock."""
    found = []
    with errors_reported():
        for dep in dvc_stage(project, name).deps:
            path, info = project.path_of(dep), dep.hash_info
            if (was := seen.get(path)) is None or not info:
                continue
            if isinstance(dep, ParamsDependency):
                has_changed = flatten(info.value or {}) != was.value
            else:
                is_other = info.name == was.algorithm and info.value != was.value
                has_changed = is_other and not _is_written_by_tools(project, dep, was)
            found += [path] if has_changed else []
    return found


def _is_written_by_tools(project: Project, dep: Any, was: Seen) -> bool:
    """Whether a folder differs only by what running code leaves beside itself."""
    now = tree_of(project, dep) if dep.hash_info.isdir and was.value else None
    if now is None:
        return False
    different = {*_files(now).items()} ^ {*was.files.items()}
    parts = [path.split("/") for path, _ in different]
    return all(any(p[0] == "." or p.endswith(_WRITTEN_BY_TOOLS) for p in own) for own in parts)


def _read_locks(project: Project) -> None:
    """Give the stages what is in dvc.lock."""
    stages = [*stages_with_locks(project)]
    texts = {lock: _source(project, project.root / lock) or b"" for _, lock in stages}
    project.locks = {
        lock: stages_in(text.decode(errors="replace"), lock) for lock, text in texts.items()
    }
    for stage, lock in stages:
        fill(stage, project.locks[lock].get(stage.name), lock)


def _known_before(project: Project, dep: Any, began: int) -> dict[str, str]:
    """Return the files of an input that changed since then, with the md5s that DVC knew."""
    found, walk = {}, project.repo.dvcignore.walk
    folders = walk(dep.fs, dep.fs_path) if dep.isdir() else [(dep.fs_path, [], [""])]
    for folder, _, names in folders:
        for name in names:
            if _changed_since(file := Path(folder, name), began):
                entry = json.loads(project.repo.state.hashes.get(str(file)) or "{}")
                found[str(file)] = entry.get("hash_info", {}).get("md5", "")
    return found


def _source(project: Project, file: Path, began: int = 0) -> bytes | None:
    r"""Return what a file has, None if it cannot be read; b"\0" if it changed after `began`."""
    if began and _changed_since(file, began):
        return b"\0"
    try:
        return work_tree.read(file, project.top, of_dvc=True)
    except OSError:
        return None


def _files_read(project: Project) -> Iterator[Path]:
    """Yield the files that decide what the stages are, whether they exist or not."""
    yield from (project.root / name for name in (".dvcignore", ".dvc/config", ".dvc/config.local"))
    with errors_reported():
        index = project.repo.index
        tops = (index._metrics, index._plots, index._params, index._artifacts)
        paths = {*(s.path for s in index.stages), *(p for top in tops for p in top)}
        yield from (Path(path) for path in paths)
        yield from template_files(project)


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
