"""The columns and order of the runs table that the printed addresses open.

MLflow stores a shared view in a tag of the experiment, in an undocumented format; a browser test
checks it.
"""

import base64
import json
import zlib
from collections.abc import Sequence

RESULTS = "results"
KEY = f"mlflow.sharedViewState.{RESULTS}"


def tags(columns: Sequence[str], key: str = RESULTS, search: str = "") -> dict[str, str]:
    """Return the tags for a view with these columns, of the runs that `search` finds.

    `viewStateShareKey=<key>` in an address opens it. It is sorted by the first column: the highest
    value first, or the lowest with a `-` before the column's name.
    """
    if not columns:
        return {}
    names = [name.removeprefix("-").partition(".") for name in columns]
    quoted = [f"{kind}.`{column}`" for kind, _, column in names]
    state: dict[str, object] = {"selectedColumns": quoted, "searchFilter": search}
    state |= {"orderByKey": quoted[0], "orderByAsc": columns[0].startswith("-")}
    packed = base64.b64encode(zlib.compress(json.dumps(state).encode())).decode()
    shared = {"name": key, "createdAt": 0, "updatedAt": 0, "state": f"deflate;{packed}"}
    return {f"mlflow.sharedViewState.{key}": json.dumps(shared)}
