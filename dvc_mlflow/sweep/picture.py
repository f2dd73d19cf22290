"""The picture of a sweep: its best value so far, and each trial as a line through its params."""

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

from matplotlib import colormaps, rc_context
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure

from .report import Score
from .search import varied

_WIDE = 50  # the largest value divided by the smallest, from which an axis is logarithmic


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
    scaled = [_scale(column) for column in columns.values()]
    lines = [*zip(*(places for places, _ in scaled), strict=True)]
    shades = colormaps["viridis" if better is min else "viridis_r"]
    for line in sorted(lines, key=lambda line: line[-1], reverse=better is min):
        right.plot(line, color=shades(line[-1]), alpha=0.7)
    right.plot(lines[values.index(better(values))], color="tab:red", linewidth=2.5)
    right.set(title="the params that vary, and the best trial in red", yticks=[])
    right.set_xticks(range(len(columns)), columns, rotation=12, ha="right")
    for x, (_, texts) in enumerate(scaled):
        right.axvline(x, color="black", linewidth=0.8)
        for y, text in texts.items():
            right.annotate(text, (x, y), (4, 0), textcoords="offset points", fontsize="small")
    return figure


def _scale(column: Sequence[Any]) -> tuple[list[float], dict[float, str]]:
    """Return the place of each value from 0 to 1, and the labels of the axis by their places."""
    if not {type(value) for value in column} <= {int, float}:
        texts = sorted({str(value) for value in column})
        places = {text: i / max(len(texts) - 1, 1) for i, text in enumerate(texts)}
        return [places[str(value)] for value in column], {places[t]: t[:20] for t in texts[:20]}
    low, high = min(column), max(column)
    place = (LogNorm if low > 0 and high / low >= _WIDE else Normalize)(low, high)
    return [place(value) for value in column], {0: f"{low:.4g}", 1: f"{high:.4g}"}
