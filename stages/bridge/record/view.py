"""The columns and order of the runs table that the printed addresses open.

MLflow stores a shared view in a tag of the experiment, in an undocumented format; a browser test
checks it.
"""

import base64
import json
import zlib
from collections.abc import Sequence

_NAME = "results"
QUERY = f"viewStateShareKey={_NAME}"


def tags(columns: Sequence[str]) -> dict[str, str]:
    """Return the tags for a view with these columns, sorted by the first.

    The highest value comes first, or with a `-` before the column's name the lowest.
    """
    if not columns:
        return {}
    names = [name.removeprefix("-").partition(".") for name in columns]
    quoted = [f"{kind}.`{key}`" for kind, _, key in names]
    ascending = columns[0].startswith("-")
    state = {"selectedColumns": quoted, "orderByKey": quoted[0], "orderByAsc": ascending}
    packed = base64.b64encode(zlib.compress(json.dumps(state).encode())).decode()
    shared = {"name": "Results", "createdAt": 0, "updatedAt": 0, "state": f"deflate;{packed}"}
    return {f"mlflow.sharedViewState.{_NAME}": json.dumps(shared)}
