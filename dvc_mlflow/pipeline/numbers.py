"""Numbers in files: metrics by key, and curves with one line per step."""

import csv
import io
import itertools
import json
import posixpath
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

_MOST_KEYS = 10_000  # of one file: YAML's aliases can stand for any number of them


class Curve(NamedTuple):
    """A column of a table: its points are (step, value)."""

    column: str
    points: Sequence[tuple[int, float]]


def flatten(values: Mapping[Any, Any], separator: str = ".") -> dict[str, Any]:
    """Return nested values by joined key, as `dvc params` and `dvc metrics` name them.

    A list is one value. Raises `ValueError` for what is no mapping, or has more than 10,000 keys.
    """
    if not isinstance(values, Mapping):
        raise ValueError(f"must be a mapping; received {values!r:.100}")
    return dict(_pairs(values, separator))


def _pairs(values: Mapping[Any, Any], separator: str) -> list[tuple[str, Any]]:
    """Return nested values with their joined keys, of which two can be the same."""
    try:
        pairs = list(itertools.islice(_walk(values, separator, ""), _MOST_KEYS + 1))
    except RecursionError:  # YAML can nest a mapping in itself
        raise ValueError("it is nested too deeply") from None
    if len(pairs) > _MOST_KEYS:
        raise ValueError(f"it has more than {_MOST_KEYS:,} keys")
    return pairs


def _walk(values: Mapping[Any, Any], separator: str, start: str) -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _walk(value, separator, f"{start}{key}{separator}")
        else:
            yield f"{start}{key}", value


def numbers(content: Any, path: str) -> tuple[list[tuple[str, float]], list[str]]:
    """Return the numbers in a metrics file with their keys, and the keys of what is no number.

    Nested keys have `/` between them. A file that holds one number gets its own name as the key.
    """
    stem = posixpath.splitext(posixpath.basename(path))[0]
    metrics, others = [], []
    for key, value in _pairs(content if isinstance(content, Mapping) else {stem: content}, "/"):
        number = _number(+value) if isinstance(value, int | float) else None  # +True is 1
        if number is None:
            others.append(key)
        else:
            metrics.append((key, number))
    return metrics, others


def curves(path: str, text: str, x: str = "", *, header: bool = True) -> list[Curve]:
    """Return the curves in a table, or none if it has no column whose whole numbers grow.

    That column is `x`, or else `step`, or else the first such column. Without a `header`, columns
    are named by their numbers, from 0.
    """
    try:
        rows = list(_rows(path, text, header))
    except (ValueError, RecursionError, csv.Error):
        return []
    names = list(dict.fromkeys(key for row in rows for key in row))
    candidates = [x] if x else ["step"] if "step" in names else names
    axes = ((name, _steps(rows, name)) for name in candidates)
    axis, steps = next(((name, steps) for name, steps in axes if steps), ("", []))
    columns = []
    for name in names if steps else ():
        if name not in (axis, "timestamp"):
            values = [(step, _number(row.get(name))) for step, row in zip(steps, rows, strict=True)]
            points = [(step, value) for step, value in values if value is not None]
            if points:
                columns.append(Curve(name, points))
    return columns


def _steps(rows: Sequence[Mapping[str, Any]], name: str) -> list[int]:
    """Return a column as steps, or [] unless it has whole numbers that grow."""
    values = [_number(row.get(name)) for row in rows]
    if any(v is None or not abs(v) < 2**63 or v != int(v) for v in values):
        return []
    steps = [int(v) for v in values if v is not None]
    return steps if all(a < b for a, b in itertools.pairwise(steps)) else []


def _rows(path: str, text: str, header: bool) -> Iterable[Mapping[str, Any]]:
    if path.endswith(".jsonl"):
        return [flatten(json.loads(line), "/") for line in text.split("\n") if line.strip()]
    delimiter = "\t" if path.endswith(".tsv") else ","
    lines = [
        line for line in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter) if line
    ]
    first = lines[0] if lines else []
    names = [name.strip() for name in first] if header else [str(i) for i in range(len(first))]
    return [dict(zip(names, line, strict=False)) for line in lines[header:]]


def _number(value: Any) -> float | None:
    if isinstance(value, bool):
        return None
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return None
