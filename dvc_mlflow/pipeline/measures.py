"""Which metrics of a row say how good its result is, which value is better, and on which data."""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence

from .row import DIGITS, Part, RowKey
from .row_stages import RowStages, draws_curves, makes_model
from .stages import Pipeline, Stage

_LOWER = {
    *("loss", "losses", "error", "errors", "err", "mse", "rmse", "mae", "mape", "smape", "msle"),
    *("rmsle", "nll", "bce", "perplexity", "ppl", "brier", "deviance", "entropy", "fid", "wer"),
    *("cer", "ece", "fpr", "fnr", "fdr", "aic", "bic", "residual", "residuals", "regret"),
    *("false", "wrong", "misclassified"),
}
"""The words by which a metric's name says that lower is better."""
_HIGHER = {
    *("acc", "accuracy", "auc", "auroc", "auprc", "aucpr", "roc", "precision", "recall", "f1"),
    *("fbeta", "r2", "score", "scores", "sensitivity", "specificity", "tpr", "tnr", "ppv", "npv"),
    *("map", "ap", "iou", "miou", "dice", "jaccard", "kappa", "mcc", "bleu", "rouge", "meteor"),
    *("ndcg", "mrr", "hit", "hits", "psnr", "ssim", "correct", "correctly", "reward"),
    *("likelihood", "similarity", "silhouette", "gini", "pearson", "spearman", "correlation"),
    *("concordance", "top"),
}
"""Those by which it says that higher is better."""
_GLUED_LOWER = ("loss", "error", "entropy", "rmse")
_GLUED_HIGHER = ("acc", "auc", "accuracy", "score")
"""Those with which a longer word can end, as `logloss` does."""
_NEGATED = {"neg", "negative"}
_NO_MEASURES = {
    *("step", "steps", "epoch", "epochs", "iter", "iteration", "iterations", "n", "num", "count"),
    *("counts", "size", "samples", "support", "rows", "created", "seed", "index", "id"),
    *("threshold", "time", "times", "seconds", "secs", "sec", "ms", "minutes", "duration"),
    *("elapsed", "runtime", "timestamp", "date", "std", "stdev", "sd", "variance", "ci"),
    *("passed", "is", "has"),
}
"""Those of counters, times, booleans and spreads, which do not say how good a result is."""
_SPLITS: Sequence[frozenset[str]] = (
    frozenset({"test", "testing"}),
    frozenset({"valid", "val", "validation", "eval", "evaluation", "dev"}),
    frozenset({"train", "training", "fit"}),
)
_UNNAMED = 1.5  # between what is measured on other data than the training's and what is not
_AVERAGES = {"macro", "micro", "weighted", "avg", "average", "mean", "overall"}
_OF_A_CLASS = {"class", "classes", "label", "per"}


def evaluating(pipeline: Pipeline, row_stages: RowStages) -> list[RowKey]:
    """Return the members of a row that evaluate, by their names in the row, the last one first.

    They have metrics, make no model, and depend on a stage that does or that draws curves. In a row
    without such, they are those with metrics on which no other one with metrics depends.
    """
    measured = {n: s for n, s in row_stages.members.items() if pipeline.metrics_of(s)}
    trains = (
        s for s in row_stages.scope() if draws_curves(pipeline, s) or makes_model(pipeline, s)
    )
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


def way(key: str) -> str:
    """Return `+` if a metric's name says that higher is better, `-` for lower, or "".

    The metric's own words decide, `test/neg_log_loss` among them; if they say nothing, those before
    it do: `errors/max` is one of the errors.
    """
    *before, own = [_words(part) for part in key.split("/")]
    if {*own} & _NO_MEASURES:
        return ""
    said = (_way(words) for words in (own, *reversed(before)))
    return next((found for found in said if found), "")


def _way(words: Sequence[str]) -> str:
    is_lower = any(word in _LOWER or word.endswith(_GLUED_LOWER) for word in words)
    is_higher = any(
        known in _HIGHER or known.endswith(_GLUED_HIGHER)
        for word in words
        for known in (word, word.rstrip("0123456789"))  # top5, map50
    )
    if {*words} & _NEGATED and is_lower:
        return "+"
    return "-" if is_lower else "+" if is_higher else ""


def rank(key: str) -> tuple[float, bool, int]:
    """Return a place among a stage's metrics: by the data measured on, and averages before classes.

    `test` is before `valid` and `eval`, these are before what names no data, and that is before
    `train`.
    """
    parts = [{*_words(part)} for part in key.split("/")]
    splits = [_SPLITS.index(names) for words in parts for names in _SPLITS if words & names]
    every = frozenset[str]().union(*parts)
    is_of_class = bool(every & _OF_A_CLASS or any(word.isdigit() for word in every))
    split = splits[-1] if splits else _UNNAMED  # the innermost name: a stage `train` can validate
    return split, is_of_class and not every & _AVERAGES, len(parts)


def _words(text: str) -> list[str]:
    return re.findall(r"[a-z]+[0-9]*|[0-9]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", text).lower())


def measures(pipeline: Pipeline, row_stages: RowStages, parts: Mapping[RowKey, Part]) -> list[str]:
    """Return the metrics of `parts`, the most telling one first, each with a sign.

    It is `+` if higher is better, `-` if lower is, and `?` if nothing says it; such a metric tells
    least. First are those of `meta.mlflow.promote`, which says which is better. Of the others,
    those of evaluations are before those of training.
    """
    promoted = [m for stage in row_stages.scope() for m in stage.settings.promote]
    ways = {m.removeprefix("-"): "-" if m.startswith("-") else "+" for m in promoted}
    first = [name for name in evaluating(pipeline, row_stages) if name in parts]
    names = [*first, *(name for name in parts if name not in first)]
    keys = {p.key: name for name in names for p in parts[name].points if p.is_final}
    signs = {key: ways.get(key, way(key)) or "?" for key in keys}

    def place(key: str) -> tuple[object, ...]:
        promotion = [*ways].index(key) if key in ways else len(ways)
        return promotion, signs[key] == "?", keys[key] not in first, rank(key)

    return [f"{signs[key]}{key}" for key in sorted(keys, key=place)]


def data_of(pipeline: Pipeline, row_stages: RowStages, names: Collection[str]) -> str:
    """Return the data sets that the evaluations among these members of a row have read.

    They are what goes into the metrics besides the model: also what the stages between the two
    read, such as one that predicts. Each comes after seven digits of its md5.
    """
    found: dict[str, None] = {}
    for stage in (row_stages.members[n] for n in evaluating(pipeline, row_stages) if n in names):
        after = after_model(pipeline, stage)
        makers = {name for name in after if after.isdisjoint(pipeline.above(name))}
        for reader in pipeline.scope([stage]):
            is_read = reader is stage or reader.name in after - makers
            for dep in reader.deps if is_read else ():
                if dep.md5 and (dep.makers or dep.is_data) and after.isdisjoint(dep.makers):
                    found[f"{dep.md5[:DIGITS]} {dep.path}"] = None  # a column shows the start
    return ", ".join(found)


def after_model(pipeline: Pipeline, stage: Stage) -> set[str]:
    """Return the stages that make the model which a stage measures, and those from there to it."""
    makers = [each for each in pipeline.stages.values() if makes_model(pipeline, each)]
    own = set() if stage in makers else {each.name for each in pipeline.nearest(stage, makers)}
    return own | {each.name for each in pipeline.scope([stage]) if own & pipeline.above(each.name)}
