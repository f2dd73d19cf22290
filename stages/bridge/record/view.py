"""The view of the table of runs that the printed addresses open: its columns and its order.

MLflow keeps a shared view in a tag of the experiment, in a format that it does not document; a test
looks at it in a browser.
"""

import base64
import json
import zlib
from collections.abc import Sequence

_NAME = "results"
QUERY = f"viewStateShareKey={_NAME}"


def tags(columns: Sequence[str]) -> dict[str, str]:
    """Return the experiment's tags: the view with these columns, sorted down by the first one."""
    if not columns:
        return {}
    quoted = [f"{kind}.`{key}`" for kind, _, key in (name.partition(".") for name in columns)]
    state = {"selectedColumns": quoted, "orderByKey": quoted[0], "orderByAsc": False}
    packed = base64.b64encode(zlib.compress(json.dumps(state).encode())).decode()
    shared = {"name": "Results", "createdAt": 0, "updatedAt": 0, "state": f"deflate;{packed}"}
    return {f"mlflow.sharedViewState.{_NAME}": json.dumps(shared)}
