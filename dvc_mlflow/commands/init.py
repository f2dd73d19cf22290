"""`dvc-mlflow init`: record the stages of a DVC project, by a prefix before their commands."""

import argparse
from collections.abc import Sequence

from ..adoption import edit, ignore_files, nesting_reported
from ..errors import ProjectError, say, warn
from ..identity import recorded
from ..pipeline import Pipeline, Stage
from ..prefix import is_prefixed
from ..project import Project
from ..repository import check_git
from ..workspace import write

LOCK = (
    "dvc.lock has the new commands, too, so nothing runs again because of them. DVC's run cache "
    "has the old ones, so results that only the run cache has are made again."
)


def run(given: argparse.Namespace) -> int:
    """Edit the files if the user wants it; return 1 if a stage has to be edited by hand."""
    chosen = [name.strip() for name in given.stages.split(",") if name.strip()]
    check_git()
    with nesting_reported(), Project() as project:
        pipeline = project.pipeline()
        stages = _stages(pipeline, chosen)
        todo = [stage for stage in stages if not is_prefixed(stage.command)]
        edits, refused = edit(project, todo, away=False)
    _show(pipeline, stages)
    for name, reason in refused.items():
        warn(f"stage {name} stays as it is: {reason}; put `dvc-mlflow run` there by hand")
    if edits or not refused:
        edits = {**edits, **ignore_files(away=False)}
        if not edits:
            say("nothing to do: these stages have the prefix")
        elif write(edits, yes=given.yes, dry_run=given.dry_run):
            _say_what_next(stages, any(file.suffix == ".lock" for file in edits))
    return bool(refused)


def _say_what_next(stages: Sequence[Stage], has_lock: bool) -> None:
    if has_lock:
        say(LOCK)
    if any(stage.has_result for stage in stages):
        say("Next: `dvc-mlflow record --all` makes a row for each result that git already has,")
        say("`dvc repro` records what it runs from now on, and `dvc-mlflow ui` shows the rows.")
    else:
        say("Next: `dvc repro` records what it runs, and `dvc-mlflow ui` shows the rows.")


def _stages(pipeline: Pipeline, chosen: Sequence[str]) -> list[Stage]:
    """Return the stages to record; raises `ProjectError` if there are none, or one is unknown."""
    known = {name for stage in pipeline.stages.values() for name in (stage.name, stage.group)}
    for name in chosen:
        if name not in known:
            raise ProjectError(f"--stages: no stage is named {name!r}; known are {sorted(known)}")
    stages = recorded(pipeline, chosen)
    if not stages:
        some = ",".join([*pipeline.stages][:3]) or "train"
        rule = "dvc.yaml has no metrics, curves or models"
        raise ProjectError(f"{rule}; name the stages to record: --stages {some}")
    return stages


def _show(pipeline: Pipeline, stages: Sequence[Stage]) -> None:
    """Say which stages there are, and which are recorded."""
    say("The stages of this project; those with a * are recorded:")
    wanted = {stage.group for stage in stages}
    for group, stage in {stage.group: stage for stage in pipeline.stages.values()}.items():
        has = {
            "metrics": pipeline.metrics_of(stage),
            "curves": any(plot.draws_lines for plot in pipeline.plots_of(stage)),
            "a model": any(pipeline.models_of(stage)),
        }
        what = ", ".join(name for name, found in has.items() if found)
        say(f"{'*' if group in wanted else ' '} {group}{what and f': {what}'}")
