"""Figures; DVC draws its own from the CSV files."""

from typing import Any

import numpy as np
import numpy.typing as npt


def confusion_matrix(pairs: npt.NDArray[np.integer[Any]], n_classes: int) -> str:
    """Draw a confusion matrix as HTML; `pairs` is `[n, 2]`, the actual class first.

    No plotting library: loading one takes longer than the evaluation.
    """
    counts = np.zeros((n_classes, n_classes), int)
    np.add.at(counts, (pairs[:, 0], pairs[:, 1]), 1)
    head = "".join(f"<th>{predicted}" for predicted in range(n_classes))
    rows = [f"<tr><th>actual \\ predicted{head}"]
    for actual, row in enumerate(counts):
        shades = row / max(counts.max(), 1) / 2
        style = '<td style="background:rgb(8 48 107 / {:.2f})">{}'
        rows.append(f"<tr><th>{actual}{''.join(map(style.format, shades, row))}")
    return '<table cellpadding="16" align="center">' + "\n".join(rows) + "</table>\n"
