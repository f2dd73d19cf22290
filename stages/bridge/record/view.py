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
    """Return the tags for a view with these columns, sorted by the first, descending."""
    if not columns:
        return {}
    quoted = [f"{kind}.`{key}`" for kind, _, key in (name.partition(".") for name in columns)]
    state = {"selectedColumns": quoted, "orderByKey": quoted[0], "orderByAsc": False}
    packed = base64.b64encode(zlib.compress(json.dumps(state).encode())).decode()
    shared = {"name": "Results", "createdAt": 0, "updatedAt": 0, "state": f"deflate;{packed}"}
    return {f"mlflow.sharedViewState.{_NAME}": json.dumps(shared)}
