"""The results of one dvc.lock, and where they come from: what all that makes rows works with."""

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from ..errors import ProjectError
from ..pipeline.row import RowKey
from ..pipeline.row_stages import RowStages, divided, locked_digests, reasons_without, recorded
from ..pipeline.stages import Model, Output, Pipeline, Stage
from ..project.definitions import read_pipeline
from ..project.project import Project
from .origin import Origin, of_commit, of_workspace


@dataclass(frozen=True)
class State:
    """What DVC knows, in the workspace or at a commit."""

    project: Project
    pipeline: Pipeline
    stages: Sequence[Stage]
    """Those that are recorded."""
    digests: Mapping[str, str]
    """Of the results of all stages, recorded or not, by stage."""
    reasons: Mapping[str, str]
    """Why the other stages have no result, by stage."""
    origin: Origin

    @property
    def commit(self) -> str:
        """The commit that has it, or "" for what is only in the checkout."""
        return self.origin.kept.commit if self.origin.kept else ""

    def results(self) -> list["Result"]:
        """Return the results that belong in rows."""
        found = map(self.result, divided(self.pipeline, self.stages))
        return [result for result in found if result.digests]

    def result(self, row_stages: RowStages) -> "Result":
        """Return the result of a row's stages, without digests if dvc.lock has none of them."""
        members = row_stages.members.items()
        own = {name: self.digests[s.name] for name, s in members if s.name in self.digests}
        return Result(self, row_stages, own)


@dataclass(frozen=True)
class Result:
    """What one row is about: its stages in one state, with the results that they have."""

    state: State
    row_stages: RowStages
    digests: Mapping[RowKey, str]
    """Of the results that there are, by their names in the row."""

    @property
    def project(self) -> Project:
        """The project that has its files."""
        return self.state.project

    @property
    def pipeline(self) -> Pipeline:
        """The pipeline that it is of."""
        return self.state.pipeline

    @property
    def origin(self) -> Origin:
        """Where it comes from."""
        return self.state.origin

    @property
    def head(self) -> Stage:
        """The last stage that has a result."""
        return self.row_stages.last(self.digests)

    def scope(self) -> list[Stage]:
        """Return the stages that made it, each after those that it depends on."""
        return self.row_stages.scope(self.digests)

    def models(
        self, names: Collection[RowKey] | None = None
    ) -> Iterator[tuple[RowKey, Model, Output]]:
        """Yield the models of these members, by default of all, each after the member's name."""
        for name in self.digests if names is None else names:
            for stage in self.row_stages.parts[name]:
                for model, output in self.pipeline.models_of(stage):
                    yield name, model, output


def read_state(project: Project, commit: str = "", now: Pipeline | None = None) -> State:
    """Return the state of the workspace, or of the commit that the project is at.

    `now` is today's pipeline, whose settings count. Raises `ProjectError`.
    """
    pipeline = read_pipeline(project).set_as(now)
    origin = of_commit(project.top, commit) if commit else of_workspace(project, pipeline)
    return state_of(project, pipeline, origin)


def pipeline_now(project: Project) -> Pipeline | None:
    """Return the pipeline of the checkout, or None if DVC cannot read it."""
    try:
        return read_pipeline(project)
    except ProjectError:
        return None


def state_of(
    project: Project, pipeline: Pipeline, origin: Origin, names: Collection[str] = ()
) -> State:
    """Return the state of a pipeline; the recorded stages have these names, if any are given."""
    locked, reasons = locked_digests(pipeline), reasons_without(pipeline)
    digests = {name: each for name, each in locked.items() if name not in reasons}
    stages = recorded(pipeline, names)
    pipeline = pipeline.with_likely_metrics(stages)
    return State(project, pipeline, stages, digests, reasons, origin)


def table_of(row_stages: RowStages) -> tuple[str, list[str]]:
    """Return a row's experiment ("": the default one), and the columns that dvc.yaml chooses."""
    members = [*row_stages.members.values()]
    given = [stage.settings.experiment for stage in (*members, *row_stages.scope())]
    experiment = os.environ.get("MLFLOW_EXPERIMENT_NAME") or next(filter(None, given), "")
    columns = [column for stage in members for column in stage.settings.columns]
    return experiment, list(dict.fromkeys(columns))


def first_table(pipeline: Pipeline | None) -> tuple[str, list[str]]:
    """Return the experiment and the columns of a project's first row, even if it has no result.

    They are the default ones if DVC cannot read the pipeline.
    """
    found = divided(pipeline, recorded(pipeline)) if pipeline else []
    return table_of(found[0]) if found else ("", [])
