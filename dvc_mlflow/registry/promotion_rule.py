"""How rows compete: by the metrics that dvc.yaml names, measured on the same data.

The stage that measures names the metrics that decide, as `meta.mlflow.promote` in dvc.yaml. The
data is what this stage and those between the model and it read, unless the model made it.
"""

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from mlflow.entities import Run

from ..errors import ToolError
from ..pipeline.keys import model_names
from ..pipeline.row_stages import RowStages, divided, makes_model, recorded
from ..pipeline.stages import Pipeline, Stage
from ..pipeline.tags import COMPLETE, MD5, tagged
from ..store.models import of_run
from ..store.store import Store


class PromotionRule(NamedTuple):
    """How rows are compared; stages by their names in the row."""

    metrics: Sequence[str]
    """As in `meta.mlflow.promote`."""
    measuring: Sequence[str]
    data: Sequence[str]
    """The paths of what these stages measure on."""
    makers: Sequence[str]
    """The stages that make the model."""
    outputs: Sequence[str]
    """The paths of the models that they make."""
    names: Sequence[str]
    """What git's tags call these models."""


def rule_of(pipeline: Pipeline, run: Run) -> PromotionRule:
    """Return how dvc.yaml compares a row; raises `ToolError` if it does not say."""
    found = divided(pipeline, recorded(pipeline))
    found = [row_stages for row_stages in found if _measuring(row_stages)]
    if not found:
        wrong = [problem for problem in pipeline.problems if ".promote: " in problem]
        cure = "add `promote: [-test/loss]` to meta.mlflow of the stage that measures it"
        raise ToolError(wrong[0] if wrong else f"dvc.yaml names no metric to compare; {cure}")

    def common(row_stages: RowStages) -> int:
        outs = [out for part in row_stages.parts.values() for stage in part for out in stage.outs]
        return sum(f"{MD5}{out.path}" in run.data.tags for out in outs)

    row_stages = max(found, key=common)  # the items of a foreach have different outputs
    names = {stage.name: name for name, part in row_stages.parts.items() for stage in part}
    known = [stage for stage in row_stages.scope() if makes_model(pipeline, stage)]
    measuring, data, makers = _measuring(row_stages), set(), list[Stage]()
    for stage in measuring:
        own = [stage] if stage in known else pipeline.nearest(stage, known)
        makers += [maker for maker in own if maker.name in names]
        data |= _data(pipeline, row_stages, stage, own)
    if not data:
        cure = "name data that git keeps in its meta.mlflow.data"
        raise ToolError(f"dvc.yaml does not say which data {measuring[0].name} reads; {cure}")
    metrics = dict.fromkeys(metric for stage in measuring for metric in stage.settings.promote)
    outputs = [(maker, out) for maker in makers for _, out in pipeline.models_of(maker)]
    return PromotionRule(
        [*metrics],
        [names[stage.name] for stage in measuring],
        sorted(data),
        [names[maker.name] for maker in makers],
        [out.path for _, out in outputs],
        list(
            dict.fromkeys(
                n for maker, out in outputs for n in model_names(pipeline, maker, out)[:1]
            )
        ),
    )


def _measuring(row_stages: RowStages) -> list[Stage]:
    return [stage for part in row_stages.parts.values() for stage in part if stage.settings.promote]


def _data(
    pipeline: Pipeline, row_stages: RowStages, stage: Stage, makers: Sequence[Stage]
) -> set[str]:
    """Return what a stage reads, itself or by way of others, that is not made from the model."""
    between = [
        other
        for other in row_stages.scope()
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


def flaws(store: Store, row: Run, rule: PromotionRule) -> Iterator[str]:
    """Yield why a row cannot be the champion, whatever it is compared with."""
    if row.info.lifecycle_stage == "deleted":
        yield "the row is in MLflow's trash"
    if row.info.status != "FINISHED":
        yield f"the row is {row.info.status}, not FINISHED"
    for name in rule.measuring:
        if name not in tagged(row.data.tags, COMPLETE):
            yield f"the row has no result of {name}"
    for key in _keys(rule):
        if math.isnan(row.data.metrics.get(key, math.nan)):
            yield f"the row has no {key}"
    for path in rule.data:
        if path not in _digests(row, rule):
            yield f"the row does not say which {path} it was measured on"
    md5s = model_md5s(row, rule)
    if not of_run(store.client, row, {*md5s.values()}):
        needed = "DVC's cache has its bytes and dvc.yaml says how to load it"
        cure = f"`dvc-mlflow record --all` logs it, once {needed}"
        yield f"the row has no logged model; {cure}"
    elif len(md5s) > 1:
        yield f"the row has {len(md5s)} models: {', '.join(md5s)}"


def defeat(row: Run, champion: Run, rule: PromotionRule) -> str:
    """Return why a row must not replace the champion, by its row; "" if it may."""
    theirs = _digests(champion, rule)
    for path, mine in _digests(row, rule).items():
        if mine != theirs.get(path):
            other = theirs.get(path, "is not known")
            return f"its data {path} has the md5 {mine}, the champion's {other}"
    tied = ""
    for metric, key in zip(rule.metrics, _keys(rule), strict=True):
        score, best = row.data.metrics[key], champion.data.metrics.get(key)
        if best is None:
            return f"the champion's row {champion.info.run_name} has no {key}"
        why = f"{key} {score} is not better than the champion's {best}"
        if score != best:
            return "" if (score < best) == metric.startswith("-") else why
        tied = tied or why
    return tied


def scores(row: Run, rule: PromotionRule) -> str:
    """Return a row's metrics that are compared, for people."""
    return ", ".join(f"{key} {row.data.metrics[key]}" for key in _keys(rule))


def model_md5s(row: Run, rule: PromotionRule) -> dict[str, str]:
    """Return the md5s of a row's models, by path."""
    given = {path: row.data.tags.get(f"{MD5}{path}", "") for path in rule.outputs}
    return {path: md5 for path, md5 in given.items() if md5}


def _keys(rule: PromotionRule) -> list[str]:
    return [metric.removeprefix("-") for metric in rule.metrics]


def _digests(run: Run, rule: PromotionRule) -> dict[str, str]:
    """Return the md5s of the data, by path, from a row's data set inputs."""
    given = run.inputs.dataset_inputs if run.inputs else ()
    # sending.py cuts their names to this length.
    found = {
        path: {g.dataset.digest for g in given if g.dataset.name == path[-250:]}
        for path in rule.data
    }
    return {path: " and ".join(sorted(md5s)) for path, md5s in found.items() if md5s}
