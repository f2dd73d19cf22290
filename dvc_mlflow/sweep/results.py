"""What a trial has come to, by its dvc.lock alone."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from .. import identity
from ..project import Project

Files = Mapping[str, Mapping[str, Any]]
"""The values of params by file and dotted key."""


class Result(NamedTuple):
    """What a trial has come to."""

    rows: Sequence[tuple[str, Mapping[str, str]]]
    """The MLflow experiment of each row, if dvc.yaml names one, and the digests of its results."""
    stages: Mapping[str, tuple[Files, Sequence[str]]]
    """The params of each stage that has a result, and the stages that it depends on directly."""


def read(project: Project) -> Result:
    """Return the result in a project's dvc.lock, where it is read from; raises `ProjectError`."""
    pipeline = project.pipeline()
    digests, _ = identity.results(pipeline)
    rows = []
    for row in identity.rows(pipeline, identity.recorded(pipeline)):
        members = row.members.items()
        wanted = {name: digests[stage.name] for name, stage in members if stage.name in digests}
        given = [stage.settings.experiment for stage in row.members.values()]
        rows += [(next(filter(None, given), ""), wanted)] if wanted else []
    stages = {
        name: ({p.file: p.values for p in stage.params}, pipeline.makers(stage))
        for name, stage in pipeline.stages.items()
        if name in digests
    }
    return Result(rows, stages)


def donors(params: Files, there: Mapping[str, Result]) -> dict[str, str]:
    """Return, by stage, a trial with the same params for it and all stages before it.

    If code or data differ anyway, DVC runs the stage.
    """
    found: dict[str, str] = {}
    for trial, (_, stages) in there.items():
        same: set[str] = set()
        for stage, (files, makers) in stages.items():
            own = [v.items() <= params.get(file, {}).items() for file, v in files.items()]
            if same.issuperset(makers) and all(own):
                same.add(stage)
        found |= dict.fromkeys(same, trial)
    return found
