"""Which stages evaluate, and which of two values of a metric is better."""

import re
from collections.abc import Iterable, Sequence

from .lineages import Lineage, draws_curves, makes_model
from .stages import Pipeline, Stage

_LOWER = {
    *("loss", "losses", "error", "errors", "err", "mse", "rmse", "mae", "mape", "smape", "msle"),
    *("rmsle", "nll", "bce", "perplexity", "ppl", "brier", "deviance", "entropy", "fid"),
    *("wer", "cer", "ece", "fpr", "fnr", "fdr", "aic", "bic", "residual", "residuals", "regret"),
}
"""The words by which a metric's name says that lower is better."""
_GLUED = ("loss", "error", "entropy", "rmse")
"""Those with which a longer word can end, as `logloss` does."""


def evaluating(pipeline: Pipeline, lineage: Lineage) -> list[str]:
    """Return the members of a row that evaluate, by their names in the row, the last one first.

    They have metrics, make no model, and depend on a stage that does or that draws curves. In a row
    without such, they are those with metrics on which no other one with metrics depends.
    """
    measured = {n: s for n, s in lineage.members.items() if pipeline.metrics_of(s)}
    trains = (s for s in lineage.scope() if draws_curves(pipeline, s) or makes_model(pipeline, s))
    makers = {stage.name for stage in trains}
    found = [
        name
        for name, stage in measured.items()
        if makers & pipeline.above(stage.name) and not makes_model(pipeline, stage)
    ]
    last = [name for name, s in measured.items() if not _is_above(pipeline, s, measured.values())]
    return [*reversed(found or last)]


def _is_above(pipeline: Pipeline, stage: Stage, others: Iterable[Stage]) -> bool:
    return any(pipeline.is_upstream(stage, of=other) for other in others)


def compares(pipeline: Pipeline, lineage: Lineage, others: Sequence[Lineage]) -> bool:
    """Whether a row compares the models of several other rows, and is about none of its own."""
    own = {stage.name for stage in lineage.members.values()}
    above = frozenset[str]().union(*(pipeline.above(name) for name in own)) - own
    met = [o for o in others if {s.name for s in o.members.values()} & above and o != lineage]
    return len(met) > 1 and not any(makes_model(pipeline, s) for s in lineage.members.values())


def is_lower_better(key: str) -> bool:
    """Whether a metric's name says so: `test/log_loss` does, `test/neg_log_loss` does not."""
    name = key.partition("/")[2] or key  # not the stage's own name
    words = re.findall(r"[a-z]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower())
    if {"neg", "negative"} & {*words}:
        return False
    return any(word in _LOWER or word.endswith(_GLUED) for word in words)
