"""The stages and files of a checkout: what DVC runs there, what holds, and what results need."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from dvc.dependency import ParamsDependency

from .. import work_tree
from ..errors import ProjectError
from ..pipeline.stages import is_below
from .definitions import dvc_stage, locked_entry, stages_with_locks
from .dvc_errors import errors_reported
from .project import Project
from .rwlock import held_by

_COARSE = 20_000_000  # ns; file times are no finer


def begin_at(project: Project, file: str, name: str) -> str:
    """Return the name of the stage that DVC runs, by its dvc.yaml and its name there.

    From now on its params are those that it reads, not those in dvc.lock.
    """
    with errors_reported():
        named = [s for s in project.repo.index.stages if getattr(s, "name", None) == name]
        for stage in named:
            if os.path.realpath(stage.path) == os.path.realpath(file):
                for dep in stage.params:
                    work_tree.check(dep.fs_path, project.top)
                    dep.hash_info = dep.get_hash()
                return project.name_of(stage)
    raise ProjectError(f"DVC has no stage {name!r} in {file}")


def holds(project: Project, name: str) -> bool:
    """Whether DVC would not run a stage again: its command, params and inputs are as locked."""
    with errors_reported():
        if (stage := dvc_stage(project, name)) is None:
            return True  # no stage makes it
        changed = getattr(stage, "cmd_changed", False) or stage.always_changed
        return not (changed or any(dep.workspace_status() for dep in stage.deps))


def is_busy(project: Project) -> bool:
    """Whether DVC holds files of the project, as while it runs a stage."""
    try:
        return held_by(project.root) != {}
    except OSError:
        return False


def entry_of(project: Project, name: str) -> object:
    """Return what dvc.lock has of a stage, or None."""
    with errors_reported():
        return locked_entry(project, dvc_stage(project, name))


def is_as_locked(project: Project, name: str) -> bool:
    """Whether the outputs of a stage are those that dvc.lock has: its entry can be an old one.

    DVC has just hashed them, so it does not again.
    """
    with errors_reported():
        outs = dvc_stage(project, name).outs
        return all(o.hash_info and o.exists and o.hash_info == o.get_hash() for o in outs)


def inputs_written(project: Project, name: str, since: int, until: int) -> list[str]:
    """Return the inputs of a stage that were written between two times, in ns since 1970.

    Params are not among them, nor what running code leaves beside itself.
    """
    written = []
    with errors_reported():
        stage = dvc_stage(project, name)
        outs = [out.fs_path for out in stage.outs]
        for dep in stage.deps:
            is_here = dep.fs.protocol == "local" and not isinstance(dep, ParamsDependency)
            for file in _files_below(project, dep) if is_here else ():
                is_own = any(is_below(out, file) for out in outs)
                with suppress(OSError):  # it can have gone
                    if not is_own and since + _COARSE < Path(file).stat().st_mtime_ns < until:
                        written.append(project.relative(file))
    return written


def _files_below(project: Project, dep: Any) -> Iterator[str]:
    """Yield the files of an input, without Python's caches and names that begin with a dot."""
    if not dep.isdir():
        yield dep.fs_path
        return
    for folder, folders, names in project.repo.dvcignore.walk(dep.fs, dep.fs_path):
        folders[:] = [name for name in folders if not name.startswith((".", "__pycache__"))]
        yield from (dep.fs.join(folder, name) for name in names if not name.startswith("."))


def files_to_keep(project: Project) -> tuple[frozenset[Path], frozenset[Path], list[Path]]:
    """Return what results need from the checkout beside what git tracks, by absolute paths.

    That is what any stage reads, but for the outputs that DVC keeps, which are second and never
    in git; then the outputs that DVC leaves to git, and each dvc.lock.
    """
    outs = project.outs.values()
    others = {Path(out.fs_path) for out in outs if not out.use_cache}
    others |= {project.root / lock for _, lock in stages_with_locks(project)}
    return (
        frozenset(Path(dep.fs_path) for s in project.repo.index.stages for dep in s.deps),
        frozenset(Path(out.fs_path) for out in outs if out.use_cache),
        [path for path in sorted(others) if path.exists() and project.is_inside(path)],
    )
