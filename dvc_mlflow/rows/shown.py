"""Which metrics of a row say how good its result is, and on which data."""

from collections.abc import Mapping

from ..pipeline.evaluations import evaluating, rank, way
from ..pipeline.lineages import makes_model
from ..pipeline.row import Part
from .result import Result

_DIGITS = 7


def measures(result: Result, parts: Mapping[str, Part]) -> list[str]:
    """Return the metrics of `parts`, the most telling one first, each with a sign.

    It is `+` if higher is better, `-` if lower is, and `?` if nothing says it; such a metric tells
    least. First are those of `meta.mlflow.promote`, which says which is better. Of the others,
    those of evaluations are before those of training.
    """
    pipeline, lineage = result.pipeline, result.lineage
    promoted = [m for stage in lineage.scope() for m in stage.settings.promote]
    ways = {m.removeprefix("-"): "-" if m.startswith("-") else "+" for m in promoted}
    first = [name for name in evaluating(pipeline, lineage) if name in parts]
    names = [*first, *(name for name in parts if name not in first)]
    keys = {p.key: name for name in names for p in parts[name].points if p.is_final}
    signs = {key: ways.get(key, way(key)) or "?" for key in keys}

    def place(key: str) -> tuple[object, ...]:
        promotion = [*ways].index(key) if key in ways else len(ways)
        return promotion, signs[key] == "?", keys[key] not in first, rank(key)

    return [f"{signs[key]}{key}" for key in sorted(keys, key=place)]


def data_of(result: Result) -> str:
    """Return the data sets that the evaluations have read, each after seven digits of its md5."""
    pipeline, lineage = result.pipeline, result.lineage
    makers = {name for name, stage in pipeline.stages.items() if makes_model(pipeline, stage)}
    found = {
        f"{dep.md5[:_DIGITS]} {dep.path}": None  # a column shows some twelve characters
        for name in evaluating(pipeline, lineage)
        if name in result.digests
        for dep in lineage.members[name].deps
        if dep.md5 and (dep.makers or dep.is_data) and not makers & {*dep.makers}
    }
    return ", ".join(found)
