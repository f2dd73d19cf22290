"""The stages and files of a checkout: what DVC runs there, what holds, and what results need."""

import os
from contextlib import suppress
from pathlib import Path

from .. import work_tree
from ..errors import ProjectError
from .definitions import dvc_stage, stages_with_locks
from .dvc_errors import errors_reported
from .project import Project


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
    with suppress(OSError):
        rwlock = project.root / ".dvc/tmp/rwlock"
        return b'"pid"' in work_tree.read(rwlock, project.root, of_dvc=True, most=1_000_000)
    return False


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
