"""The columns and order of the runs table that the printed addresses open.

MLflow stores a shared view in a tag of the experiment, in an undocumented format; a browser test
checks it.
"""

import base64
import json
import zlib
from collections.abc import Mapping, Sequence

RESULTS = "results"
KEY = f"mlflow.sharedViewState.{RESULTS}"
_MOST = 8
"""Columns of the table, of metrics and of params."""
_DEFAULT = "default"
"""The key of a view that nobody has chosen: its columns, with their signs. MLflow skips it.

As it is in the view's own tag, two processes that add columns at once leave the two in step.
"""


def united(shown: Sequence[str], columns: Sequence[str]) -> list[str]:
    """Return the columns that a table shows together with others: metrics, params, tags.

    Only the first ones have room, and none that is shown goes.
    """
    every = {name.removeprefix("-"): name for name in (*shown, *columns)}

    def of(kind: str) -> list[str]:
        return [name for key, name in every.items() if key.startswith(f"{kind}.")]

    return [*of("metrics")[:_MOST], *of("params")[:_MOST], *of("tags")]


def by_default(columns: Sequence[str]) -> dict[str, str]:
    """Return the tags for a view that nobody has chosen: without metrics, the newest run is first.

    With metrics, it is sorted by the first of them.
    """
    has_metrics = any(name.removeprefix("-").startswith("metrics.") for name in columns)
    order = {} if has_metrics else {"orderByKey": "attributes.start_time"}
    return tags(columns, more={**order, _DEFAULT: [*columns]})


def default_columns(tag: str | None) -> list[str] | None:
    """Return the columns that `by_default` put into a tag, or None if the view is another."""
    if tag is None:
        return []
    try:
        packed = json.loads(tag)["state"].removeprefix("deflate;")
        state = json.loads(zlib.decompress(base64.b64decode(packed)))
        return [str(column) for column in state[_DEFAULT]]
    except (ValueError, LookupError, TypeError, AttributeError, zlib.error):
        return None


def tags(
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
