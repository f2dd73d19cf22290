"""`dvc-mlflow promote RUN`: make a row's model the champion, if it is better on the same data.

The stage that measures names the metrics that decide, as `meta.mlflow.promote` in dvc.yaml. The
data is what this stage and those between the model and it read, unless the model made it.
"""

import argparse
import json
import math
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stderr
from io import StringIO
from typing import NamedTuple, TypeVar

from ..store import Store, read_run  # before MLflow, which it sets up

# isort: split
import mlflow
from mlflow.entities import Run

from .. import identity
from ..errors import ToolError, say, warn
from ..identity import Row
from ..models import logged_name
from ..pipeline import Pipeline, Stage
from ..project import Project
from ..repository import main_repository
from ..tags import COMPLETE

ALIAS = "champion"
ROW = "dvc.row"
"""The tag of a version that names its row, because rows can share a model."""

_T = TypeVar("_T")


class Contest(NamedTuple):
    """How rows are compared; stages by their names in the row."""

    metrics: Sequence[str]
    """As in `meta.mlflow.promote`."""
    measuring: Sequence[str]
    data: Sequence[str]
    """The paths of what these stages measure on."""
    makers: Sequence[str]
    """The stages that make the model."""


def run(given: argparse.Namespace) -> int:
    """Promote the row that the command line names, or say why not; return the exit status."""
    root = main_repository()
    with Project() as project:
        pipeline = project.pipeline()
    row = read_run(root, given.run)
    contest = _contest(pipeline, row)
    store = Store(root, create=False)
    with store.lock(), store.errors_reported():
        experiment = store.client.get_experiment(row.info.experiment_id).name
        name = re.sub("[/:]", "-", experiment)  # a registered model's name has neither
        registered = _found(lambda: store.client.get_registered_model(name))
        number = str(registered.aliases.get(ALIAS, "")) if registered else ""
        models = _models(store, row, contest)
        why = next(_flaws(row, contest, models), "")
        if number and not why and (why := _defeat(store, row, contest, name, number)):
            why += f" (version {number})"
        if not why:
            number = _register(store, row, models[0], name)
    if given.json:
        done = {"run_id": row.info.run_id, "promoted": not why, "why": why}
        say(json.dumps({**done, "model": name, "alias": ALIAS, "version": number}))
    elif why:
        warn(f"{row.info.run_id}: not promoted; {why}")
    else:
        say(f"models:/{name}@{ALIAS} is version {number}, the model of row {row.info.run_id}")
    return bool(why)


def _contest(pipeline: Pipeline, run: Run) -> Contest:
    """Return how dvc.yaml compares a row; raises `ToolError` if it does not say."""
    rows = identity.rows(pipeline, identity.recorded(pipeline))
    rows = [row for row in rows if _measuring(row)]
    if not rows:
        wrong = [problem for problem in pipeline.problems if ".promote: " in problem]
        cure = "add `promote: [-test/loss]` to meta.mlflow of the stage that measures it"
        raise ToolError(wrong[0] if wrong else f"dvc.yaml names no metric to compare; {cure}")

    def common(row: Row) -> int:
        outs = [out for part in row.parts.values() for stage in part for out in stage.outs]
        return sum(f"md5.{out.path}" in run.data.tags for out in outs)

    row = max(rows, key=common)  # the items of a foreach have different outputs
    names = {stage.name: name for name, part in row.parts.items() for stage in part}
    known = [stage for stage in row.scope() if identity.makes_model(pipeline, stage)]
    measuring, makers, data = _measuring(row), [], set()
    for stage in measuring:
        own = [stage] if stage in known else pipeline.nearest(stage, known)
        makers += [names[maker.name] for maker in own if maker.name in names]
        data |= _data(pipeline, row, stage, own)
    if not data:
        cure = "name data that git keeps in its meta.mlflow.data"
        raise ToolError(f"dvc.yaml does not say which data {measuring[0].name} reads; {cure}")
    metrics = dict.fromkeys(metric for stage in measuring for metric in stage.settings.promote)
    return Contest([*metrics], [names[stage.name] for stage in measuring], sorted(data), makers)


def _measuring(row: Row) -> list[Stage]:
    return [stage for part in row.parts.values() for stage in part if stage.settings.promote]


def _data(pipeline: Pipeline, row: Row, stage: Stage, makers: Sequence[Stage]) -> set[str]:
    """Return what a stage reads, itself or by way of others, that is not made from the model."""
    between = [
        other
        for other in row.scope()
        if pipeline.is_upstream(other, of=stage)
        and any(pipeline.is_upstream(maker, of=other) for maker in makers)
    ]
    own = {each.name for each in (*makers, *between, stage)}
    return {
        dep.path
        for each in (*between, stage)
        for dep in each.deps
        if (dep.makers or dep.is_data) and not own & {*dep.makers}
    }


def _models(store: Store, row: Run, contest: Contest) -> list[str]:
    """Return the ids of a row's logged models; if it has several, of those that are compared."""
    outputs = row.outputs.model_outputs if row.outputs else ()
    found = list(dict.fromkeys(output.model_id for output in outputs))
    if len(found) > 1:
        names = {logged_name(name) for name in contest.makers}
        found = [each for each in found if store.client.get_logged_model(each).name in names]
    return found


def _flaws(row: Run, contest: Contest, models: Sequence[str]) -> Iterator[str]:
    """Yield why a row cannot be the champion, whatever it is compared with."""
    if row.info.lifecycle_stage == "deleted":
        yield "the row is in MLflow's trash"
    if row.info.status != "FINISHED":
        yield f"the row is {row.info.status}, not FINISHED"
    for name in contest.measuring:
        if f"{COMPLETE}{name}" not in row.data.tags:
            yield f"the row has no result of {name}"
    for key in _keys(contest):
        if math.isnan(row.data.metrics.get(key, math.nan)):
            yield f"the row has no {key}"
    for path in contest.data:
        if path not in _digests(row, contest):
            yield f"the row does not say which {path} it was measured on"
    if len(models) != 1:
        yield f"the row has {len(models) or 'no'} logged model{'s' * (len(models) > 1)}"


def _defeat(store: Store, row: Run, contest: Contest, name: str, number: str) -> str:
    """Return why a row must not replace the champion, version `number`; "" if it may."""
    version = store.client.get_model_version(name, number)
    run_id = version.tags.get(ROW) or version.run_id or "none"
    champion = _found(lambda: store.client.get_run(run_id))
    if champion is None:
        return f"the champion's row {run_id} is gone; delete the alias {ALIAS} to choose anew"
    theirs = _digests(champion, contest)
    for path, mine in _digests(row, contest).items():
        if mine != theirs.get(path):
            other = theirs.get(path, "is not known")
            return f"its data {path} has the md5 {mine}, the champion's {other}"
    tied = ""
    for metric, key in zip(contest.metrics, _keys(contest), strict=True):
        score, best = row.data.metrics[key], champion.data.metrics.get(key)
        if best is None:
            return f"the champion's row {run_id} has no {key}"
        why = f"{key} {score} is not better than the champion's {best}"
        if score != best:
            return "" if (score < best) == metric.startswith("-") else why
        tied = tied or why
    return tied


def _register(store: Store, row: Run, model: str, name: str) -> str:
    """Register a row's model, and move the alias to it; return its version."""
    with redirect_stderr(StringIO()):  # MLflow reports each step
        tags = {ROW: row.info.run_id}
        made = mlflow.register_model(f"models:/{model}", name, tags=tags)
    store.client.set_registered_model_alias(name, ALIAS, made.version)
    return f"{made.version}"


def _keys(contest: Contest) -> list[str]:
    return [metric.removeprefix("-") for metric in contest.metrics]


def _digests(run: Run, contest: Contest) -> dict[str, str]:
    """Return the md5s of the data, by path, from a row's data set inputs."""
    given = run.inputs.dataset_inputs if run.inputs else ()
    # sending.py cuts their names to this length.
    found = {
        path: {g.dataset.digest for g in given if g.dataset.name == path[-250:]}
        for path in contest.data
    }
    return {path: " and ".join(sorted(md5s)) for path, md5s in found.items() if md5s}


def _found(call: Callable[[], _T]) -> _T | None:
    """Return what a call finds in the store, or None if it is not there."""
    try:
        return call()
    except mlflow.MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None
