"""The picture of a sweep: its best value so far, and each trial as a line through its params."""

from collections.abc import Mapping, Sequence
from itertools import accumulate
from textwrap import fill
from typing import Any

from matplotlib import colormaps, rc_context
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator

from .report import Score
from .search import varied

_WIDE = 50  # the largest value divided by the smallest, from which an axis is logarithmic
_TICKS = 8  # the most different values that each have a tick
_LONGEST = 20  # characters of a tick


@rc_context({"text.parse_math": False})  # a value can be any text
def draw(metric: str, scores: Sequence[Score]) -> Figure:
    """Draw trials in the order in which they began."""
    begun = sorted(scores, key=lambda score: score.row.info.start_time)
    values = [score.value for score in begun]
    name, better = metric.removeprefix("-"), min if metric.startswith("-") else max
    columns = {**varied([score.trial for score in begun]), name: values}
    width = 2 + 2 * len(columns)
    figure = Figure(figsize=(6 + width, 5), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=[6, width])
    numbers = range(1, len(values) + 1)
    left.plot(numbers, values, "o", color="0.6", markersize=3)
    left.step(numbers, [*accumulate(values, better)], where="post", color="tab:red")
    left.set(title="each trial, and the best so far", xlabel="trial", ylabel=name)
    left.xaxis.set_major_locator(MaxNLocator(integer=True))
    scaled = [_scale(column) for column in columns.values()]
    lines = [*zip(*(places for places, *_ in scaled), strict=True)]
    shades = colormaps["viridis" if better is min else "viridis_r"]
    for line in sorted(lines, key=lambda line: line[-1], reverse=better is min):
        right.plot(line, color=shades(line[-1]), alpha=0.7)
    best = values.index(better(values))
    right.plot(lines[best], color="tab:red", linewidth=2.5)
    right.set(title=_best(columns, best), yticks=[], xlim=(-0.2, len(columns) - 0.4))
    names = [
        f"{key} (log)" if kind == "log" else key
        for key, (*_, kind) in zip(columns, scaled, strict=True)
    ]
    right.set_xticks(range(len(columns)), names, rotation=12, ha="right")
    behind = {"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 0.5}
    for x, (_, texts, _) in enumerate(scaled):
        right.axvline(x, color="black", linewidth=0.8)
        for y, text in texts.items():
            right.plot(x, y, "k_", markersize=6)
            at = {"xytext": (5, 0), "textcoords": "offset points", "va": "center"}
            right.annotate(text, (x, y), fontsize="small", bbox=behind, **at)
    return figure


def _best(columns: Mapping[str, Sequence[Any]], best: int) -> str:
    """Return the values of the best trial, in lines that fit the picture."""
    *params, metric = [f"{key}={_text(column[best])}" for key, column in columns.items()]
    what = f"the best (red): {metric}{' with ' * bool(params)}{', '.join(params)}"
    return fill(what, 30 + 20 * len(columns))


def _scale(column: Sequence[Any]) -> tuple[list[float], dict[float, str], str]:
    """Return the places of the values from 0 to 1, the ticks by their places, and the scale."""
    if not {type(value) for value in column} <= {int, float}:
        texts = sorted({str(value) for value in column})
        places = {text: i / max(len(texts) - 1, 1) for i, text in enumerate(texts)}
        ticks = {
            places[t]: t if len(t) <= _LONGEST else f"{t[: _LONGEST - 1]}…" for t in texts[:20]
        }
        return [places[str(value)] for value in column], ticks, "names"
    low, high = min(column), max(column)
    is_log = low > 0 and high / low >= _WIDE
    place = (LogNorm if is_log else Normalize)(low, high)
    marked = sorted({*column})
    if len(marked) > _TICKS:  # round values between the ends
        locator = LogLocator(subs=(1, 2, 5)) if is_log else MaxNLocator(_TICKS - 2)
        marked = [value for value in locator.tick_values(low, high) if low <= value <= high]
    return [place(v) for v in column], {float(place(v)): _text(v) for v in marked}, "log" * is_log


def _text(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
