"""Figures for MLflow; DVC draws its own from the CSV files."""

from typing import Any

import numpy as np
import numpy.typing as npt

_CELL = 60  # pixels


def confusion_matrix(pairs: npt.NDArray[np.integer[Any]], n_classes: int) -> str:
    """Draw a confusion matrix as SVG; `pairs` is `[n, 2]`, the actual class first.

    By hand: loading Matplotlib takes longer than the evaluation.
    """
    counts = np.zeros((n_classes, n_classes), int)
    np.add.at(counts, (pairs[:, 0], pairs[:, 1]), 1)
    size = (n_classes + 1) * _CELL
    texts: list[tuple[object, float, float]] = [
        ("predicted", size / 2 + _CELL / 2, 14),
        ("actual", 24, _CELL - 10),
    ]
    cells = []
    for i in range(n_classes):
        center = (i + 1.5) * _CELL
        texts += [(i, center, _CELL - 10), (i, _CELL - 14, center)]
    for (row, column), count in np.ndenumerate(counts):
        x, y, share = (column + 1) * _CELL, (row + 1) * _CELL, count / max(counts.max(), 1)
        cells.append(
            f'<rect x="{x}" y="{y}" width="{_CELL}" height="{_CELL}" stroke="#ddd" '
            f'fill="rgb(8 48 107 / {share:.3f})"/>'
            f'<text x="{x + _CELL / 2}" y="{y + _CELL / 2}" '
            f'fill="{"white" if share > 0.5 else "black"}">{count}</text>'
        )
    labels = [f'<text x="{x}" y="{y}">{text}</text>' for text, x, y in texts]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size} {size}" width="{size}" '
        'font-family="sans-serif" font-size="15" text-anchor="middle" dominant-baseline="middle">'
        f'<rect width="100%" height="100%" fill="white"/>{"".join(cells + labels)}</svg>\n'
    )
