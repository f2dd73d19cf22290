"""The results of one dvc.lock: which stages are recorded, and what is known of each."""

import os
from collections.abc import Sequence
from dataclasses import dataclass

from . import identity
from .errors import ProjectError
from .identity import Row
from .origin import Origin, of_commit, of_workspace
from .pipeline import Pipeline, Stage
from .project import Project


@dataclass(frozen=True)
class State:
    """What DVC knows, in the workspace or at a commit."""

    project: Project
    pipeline: Pipeline
    stages: Sequence[Stage]
    """Those that are recorded."""
    digests: dict[str, str]
    """Of the results of all stages, recorded or not, by stage."""
    reasons: dict[str, str]
    """Why the other stages have no result, by stage."""
    origin: Origin

    def rows(self) -> list[Row]:
        """Return the rows for which there is a result."""
        found = identity.rows(self.pipeline, self.stages)
        return [row for row in found if self.wanted(row)]

    def wanted(self, row: Row) -> dict[str, str]:
        """Return the digests of the results that a row is to have, by their names in the row."""
        members = row.members.items()
        return {name: self.digests[s.name] for name, s in members if s.name in self.digests}


def read(
    project: Project,
    commit: str = "",
    called: str = "",
    chosen: Sequence[str] = (),
    began: int = 0,
) -> State:
    """Return the state of the workspace, or of a commit; `called` is the user's name for it.

    `chosen` are the stages to record, by name. `began` is when the running stage began (in ns), if
    there is one. Raises `ProjectError`.
    """
    pipeline = project.pipeline()
    known = {name for stage in pipeline.stages.values() for name in (stage.name, stage.group)}
    for name in chosen:
        if name not in known:
            raise ProjectError(f"--stages: no stage is named {name!r}; known are {sorted(known)}")
    origin = of_commit(commit, called) if commit else of_workspace(project, pipeline, began)
    return of(project, pipeline, origin, chosen)


def of(project: Project, pipeline: Pipeline, origin: Origin, chosen: Sequence[str] = ()) -> State:
    """Return the state of a pipeline in a project; `chosen` are the stages to record, by name."""
    stages = identity.recorded(pipeline, chosen)
    digests, reasons = identity.results(pipeline)
    return State(project, pipeline, stages, digests, reasons, origin)


def experiment(row: Row) -> str:
    """Return the name of a row's experiment, or "" for the project's default one."""
    given = [stage.settings.experiment for stage in row.members.values()]
    return os.environ.get("MLFLOW_EXPERIMENT_NAME") or next(filter(None, given), "")


def table(project: Project) -> tuple[str, list[str]]:
    """Return the experiment and the columns of a project's first row, even if it has no result."""
    pipeline = project.pipeline()
    found = identity.rows(pipeline, identity.recorded(pipeline))
    return (experiment(found[0]), columns(found[0])) if found else ("", [])


def columns(row: Row) -> list[str]:
    """Return the columns that dvc.yaml chooses for a row's table, best first."""
    given = [column for stage in row.members.values() for column in stage.settings.columns]
    return list(dict.fromkeys(given))
