"""The columns and order of the runs table that the printed addresses open.

Unless somebody chooses them, they are a function of the rows: the metric that says which is best,
and the params by which the rows differ. MLflow stores a shared view in a tag of the experiment, in
an undocumented format; a browser test checks it.
"""

import base64
import json
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence

from mlflow.entities import RunData

from ..pipeline.keys import tells
from ..pipeline.tags import CHANGE, DATA

RESULTS = "results"
KEY = f"mlflow.sharedViewState.{RESULTS}"
_WIDE = 4
"""Columns of metrics and params that a browser of 1,440 px shows beside MLflow's panels."""
_MOST_PARAMS = 8
_WORD = 3  # characters that are not in a longer value by chance
_MEASURES, _OF_3_0 = "measures", "default"
"""What a view that nobody has chosen has besides, which MLflow skips: the metrics, with signs."""


def by_default(rows: Sequence[RunData], measures: Sequence[str]) -> dict[str, str]:
    """Return the tags for a view of these rows, newest first, that nobody has chosen.

    `measures` are the metrics of such rows, best first, with signs (`pipeline.measures`). The table
    is sorted by the first one of which the direction is known and that half of the rows with
    metrics have; else the newest row is first.
    """
    best, params = sorted_by(rows, measures), _params(rows)
    room = max(_WIDE - len(params), 1)  # metrics stand before params
    columns = [f"metrics.{key}" for key in _metrics(rows, measures, best)[:room]]
    columns += [f"params.{key}" for key in params[:_MOST_PARAMS]]
    if len({row.tags[DATA] for row in rows if DATA in row.tags}) > 1:
        columns.append(f"tags.{DATA}")
    columns.append(f"tags.{CHANGE}")
    order: dict[str, object] = {"orderByKey": "attributes.start_time", "orderByAsc": False}
    if best:
        order = {"orderByKey": f"metrics.`{best[1:]}`", "orderByAsc": best[0] == "-"}
    return view_tags(columns, more={**order, _MEASURES: [*measures]})


def sorted_by(rows: Sequence[RunData], measures: Sequence[str]) -> str:
    """Return the metric that says which row is best, with its sign, or "" if none does."""
    measured = [row for row in rows if any(_has(row, measure[1:]) for measure in measures)]
    known = (measure for measure in measures if measure[0] != "?")
    return next(
        (m for m in known if 2 * sum(_has(r, m[1:]) for r in measured) >= len(measured)), ""
    )


def _metrics(rows: Sequence[RunData], measures: Sequence[str], best: str) -> list[str]:
    """Return the metrics: `best`, then the best one of rows that lack it, as of a comparison's."""
    found = [best[1:]] if best else []
    for key in (measure[1:] for measure in measures):
        if any(_has(row, key) and not any(_has(row, each) for each in found) for row in rows):
            found.append(key)
    others = (measure[1:] for measure in measures if any(_has(row, measure[1:]) for row in rows))
    return [*dict.fromkeys([*found, *others])]


def _params(rows: Sequence[RunData]) -> list[str]:
    """Return the params that differ, first those by which most rows differ, then the last changed.

    What says the same as another in each row, as the name of an item and its path, is there once.
    """
    found: dict[str, list[str]] = {}
    for key in sorted({key for row in rows for key in row.params}):
        own = [row.params[key] for row in rows if key in row.params]
        if len({*own}) > 1 and all(tells(key, value) for value in own):
            found[key] = own
    if _is_joined(rows, "key", [key for key in found if key.startswith("item.")]):
        found.pop("key", None)

    def place(key: str) -> tuple[int, int]:
        own = found[key]
        ((_, most),) = Counter(own).most_common(1)
        return most - len(own), next(i for i, value in enumerate(own) if value != own[0])

    once: list[str] = []
    for key in sorted(found, key=place):
        if not any(_says_same(rows, key, other) for other in once):
            once.append(key)
    return once


def _is_joined(rows: Sequence[RunData], key: str, others: Sequence[str]) -> bool:
    """Whether a param has the values of others in each row, as the name of a matrix's item."""
    return len(others) > 1 and all(
        row.params.get(other, "") in row.params.get(key, "") for row in rows for other in others
    )


def _says_same(rows: Sequence[RunData], key: str, other: str) -> bool:
    """Whether two params have the same value in each row, or the longer one contains the other."""
    pairs = [sorted((row.params.get(key, ""), row.params.get(other, "")), key=len) for row in rows]
    return all(one == two or (len(one) >= _WORD and one in two) for one, two in pairs)


def _has(row: RunData, metric: str) -> bool:
    return metric in row.metrics


def default_measures(tag: str | None) -> list[str] | None:
    """Return the metrics that `by_default` put into a tag, or None if the view is another."""
    if tag is None:
        return []
    try:
        packed = json.loads(tag)["state"].removeprefix("deflate;")
        state = json.loads(zlib.decompress(base64.b64decode(packed)))
        return [] if _OF_3_0 in state else [str(measure) for measure in state[_MEASURES]]
    except (ValueError, LookupError, TypeError, AttributeError, zlib.error):
        return None


def view_tags(
    columns: Sequence[str],
    key: str = RESULTS,
    search: str = "",
    more: Mapping[str, object] = {},
) -> dict[str, str]:
    """Return the tags for a view with these columns, of the runs that `search` finds.

    `viewStateShareKey=<key>` in an address opens it. It is sorted by the first column: the highest
    value first, or the lowest with a `-` before the column's name. `more` joins
    the view's state, and replaces what it has.
    """
    if not columns:
        return {}
    names = [name.removeprefix("-").partition(".") for name in columns]
    quoted = [f"{kind}.`{column}`" for kind, _, column in names]
    state: dict[str, object] = {"selectedColumns": quoted, "searchFilter": search}
    state |= {"orderByKey": quoted[0], "orderByAsc": columns[0].startswith("-"), **more}
    packed = base64.b64encode(zlib.compress(json.dumps(state).encode())).decode()
    shared = {"name": key, "createdAt": 0, "updatedAt": 0, "state": f"deflate;{packed}"}
    return {f"mlflow.sharedViewState.{key}": json.dumps(shared)}
