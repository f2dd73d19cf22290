"""Which metrics of a row say how good its result is, which value is better, and on which data."""

import re
from collections.abc import Collection, Mapping

from .row import DIGITS, Part, RowKey
from .row_stages import RowStages, draws_curves, makes_model
from .stages import Pipeline, Stage

_WORDS = {
    # Counters, times, booleans and spreads do not say how good a result is.
    "": "step steps epoch epochs iter iteration iterations n num count counts size samples support "
    "rows seed index id threshold time times seconds secs sec ms minutes duration elapsed date "
    "timestamp std stdev sd variance ci passed is has",
    "+": "neg acc accuracy auc auroc auprc roc precision recall f1 fbeta r2 score scores ndcg mrr "
    "sensitivity specificity tpr tnr ppv npv map ap iou dice jaccard kappa mcc bleu rouge meteor "
    "psnr ssim hit hits top correct correctly reward likelihood similarity silhouette gini pearson "
    "spearman correlation concordance",
    "-": "loss losses error errors err mse rmse mae mape smape msle rmsle nll bce perplexity ppl "
    "brier deviance entropy fid wer cer ece fpr fnr fdr aic bic residual residuals regret false "
    "wrong misclassified",
}
"""The words of metrics' names by what they say: higher is better, lower is, or neither."""
_WAYS = {word: way for way, words in _WORDS.items() for word in words.split()}


def evaluating(pipeline: Pipeline, row_stages: RowStages) -> list[RowKey]:
    """Return the members of a row that evaluate, by their names in the row, the last one first.

    They have metrics, make no model, and depend on a stage that does or that draws curves. In a row
    without such, they are those with metrics on which no other one with metrics depends.
    """
    measured = {n: s for n, s in row_stages.members.items() if pipeline.metrics_paths(s)}
    trains = (
        s for s in row_stages.scope() if draws_curves(pipeline, s) or makes_model(pipeline, s)
    )
    makers = {stage.name for stage in trains}
    evaluations = [
        name
        for name, stage in measured.items()
        if makers & pipeline.above(stage.name) and not makes_model(pipeline, stage)
    ]
    read = frozenset[str]().union(*(pipeline.above(stage.name) for stage in measured.values()))
    last = [name for name, stage in measured.items() if stage.name not in read]
    return [*reversed(evaluations or last)]


def way(key: str) -> str:
    """Return `+` if a metric's name says that higher is better, `-` for lower, or "".

    The last part that says something decides: `errors/max` is one of the errors. In a part, `+`
    is before `-`: `neg_log_loss`.
    """
    for part in reversed(key.split("/")):
        split = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", part).lower()
        words = [*filter(None, map(_known, re.findall("[a-z]+[0-9]*", split)))]
        if words:
            return min(_WAYS[word] for word in words)
    return ""


def _known(word: str) -> str:
    """Return the known word that a word is or, as `logloss`, ends with, but for its digits."""
    plain = word.rstrip("0123456789")
    longer = (plain[i:] for i in range(len(plain) - 2))
    return next((known for known in (word, *longer, plain) if known in _WAYS), "")


def measures(pipeline: Pipeline, row_stages: RowStages, parts: Mapping[RowKey, Part]) -> list[str]:
    """Return the metrics of `parts`, the most telling one first, each with a sign.

    It is `+` if higher is better, `-` if lower is, and `?` if nothing says it; such a metric tells
    least. First are those of `meta.mlflow.promote`, which says which is better. Of the others,
    those of evaluations are before those of training, and scores before errors and losses.
    """
    promoted = [m for stage in row_stages.scope() for m in stage.settings.promote]
    ways = {m.removeprefix("-"): "-" if m.startswith("-") else "+" for m in promoted}
    first = [name for name in evaluating(pipeline, row_stages) if name in parts]
    names = [*first, *(name for name in parts if name not in first)]
    keys = {p.key: name for name in names for p in parts[name].points if p.is_final}
    signs = {key: ways.get(key, way(key)) or "?" for key in keys}

    def place(key: str) -> tuple[object, ...]:
        promotion = [*ways].index(key) if key in ways else len(ways)
        return promotion, signs[key] == "?", keys[key] not in first, signs[key]

    return [f"{signs[key]}{key}" for key in sorted(keys, key=place)]


def data_of(pipeline: Pipeline, row_stages: RowStages, names: Collection[str]) -> str:
    """Return the data sets that the evaluations among these members of a row have read.

    They are what goes into the metrics besides the model: also what the stages between the two
    read, such as one that predicts. Each comes after seven digits of its md5.
    """
    data_sets: dict[str, None] = {}
    for stage in (row_stages.members[n] for n in evaluating(pipeline, row_stages) if n in names):
        after = after_model(pipeline, stage)
        makers = {name for name in after if after.isdisjoint(pipeline.above(name))}
        for reader in pipeline.scope([stage]):
            is_read = reader is stage or reader.name in after - makers
            for dep in reader.deps if is_read else ():
                if dep.md5 and (dep.makers or dep.is_data) and after.isdisjoint(dep.makers):
                    data_sets[f"{dep.md5[:DIGITS]} {dep.path}"] = None  # a column shows the start
    return ", ".join(data_sets)


def after_model(pipeline: Pipeline, stage: Stage) -> set[str]:
    """Return the stages that make the model which a stage measures, and those from there to it."""
    makers = [each for each in pipeline.stages.values() if makes_model(pipeline, each)]
    own = set() if stage in makers else {each.name for each in pipeline.nearest(stage, makers)}
    return own | {each.name for each in pipeline.scope([stage]) if own & pipeline.above(each.name)}
