"""What the table shows of a row, unless dvc.yaml chooses its columns."""

from collections.abc import Iterable, Mapping

from ..pipeline.evaluations import compares, evaluating, is_lower_better
from ..pipeline.lineages import lineages
from ..pipeline.naming import allowed_key
from ..pipeline.row import Part
from ..pipeline.tags import CHANGE
from .changes import Changes
from .content import item_params
from .result import Result


def shown(
    result: Result, found: Changes, params: Iterable[str], parts: Mapping[str, Part]
) -> list[str]:
    """Return the columns, best first: metrics, values of the item, changed params, the commit.

    `params` and `parts` are what the row gets. A row that compares others has no columns, as the
    others would not have its metrics.
    """
    state, lineage = result.state, result.lineage
    if compares(state.pipeline, lineage, lineages(state.pipeline, state.stages)):
        return []
    items = [key for key, _, _ in item_params(lineage, [*lineage.members])]
    names = map(allowed_key, (*items, *found.params))
    there = {*params}
    metrics = metrics_shown(result, parts)
    return [*metrics, *(f"params.{n}" for n in names if n in there), f"tags.{CHANGE}"]


def metrics_shown(result: Result, parts: Mapping[str, Part]) -> list[str]:
    """Return the metrics of the stages that evaluate, with a `-` before them if lower is better.

    First are those of `meta.mlflow.promote`, which says whether lower is better, then those of the
    last stage. Of the others, their names say it.
    """
    state, lineage = result.state, result.lineage
    promoted = [m for stage in lineage.scope() for m in stage.settings.promote]
    ways = {metric.removeprefix("-"): metric.startswith("-") for metric in promoted}
    keys = [
        point.key
        for name in evaluating(state.pipeline, lineage)
        if name in parts
        for point in parts[name].points
        if point.is_final
    ]
    keys.sort(key=lambda key: [*ways].index(key) if key in ways else len(ways))
    lower = {key: ways.get(key, is_lower_better(key)) for key in keys}
    return [f"{'-' * is_lower}metrics.{key}" for key, is_lower in lower.items()]
