"""Find the row that a command line names: by its run id, its name, or the digits of that."""

import re
from pathlib import Path

from mlflow.entities import Run

from ..errors import ToolError
from ..pipeline.tags import FOUND_BY
from .store import Store, exists


def read_run(root: Path, named: str) -> Run:
    """Return the one run that is called so; raises `ToolError` if there is none, or several."""
    if not exists(root):
        raise ToolError(f"{root}: has no mlflow.db, and MLFLOW_TRACKING_URI is not set")
    store = Store.existing(root)
    with store.errors_reported():
        if re.fullmatch("[0-9a-f]{32}", named):
            return store.client.get_run(named)
        found = _called(store, named)
    if not found:
        rule = "RUN must be a row's name, the seven digits that end it, or its run id"
        raise ToolError(f"{rule}; there is none for {named!r:.200}")
    if len(found) > 1:
        some = ", ".join(f"{run.info.run_name!r} ({run.info.run_id})" for run in found[:5])
        raise ToolError(f"{named!r}: {len(found)} rows are called so: {some}; name one run id")
    return found[0]


def _called(store: Store, named: str) -> list[Run]:
    """Return the runs with this name; if there is none, those that its digits end or stand for.

    A name can have been another, in this store or in one that was lost.
    """
    if not named:
        return []
    experiments = store.all_experiments()
    quote = '"' if "'" in named else "'"
    can_ask = quote not in named and "\\" not in named
    query = f"attributes.run_name = {quote}{named}{quote}" if can_ask else ""
    found = [r for r in store.runs(query, experiments=experiments) if r.info.run_name == named]
    digits = re.search(r"(?:^| )([0-9a-f]{7})$", named)
    if not found and digits and digits[1] == named:
        found = [*store.runs(f"attributes.run_name LIKE '% {named}'", experiments=experiments)]
    if not found and digits:
        query = f"tags.`{FOUND_BY}` LIKE '%{digits[1]}%'"
        found = [*store.runs(query, experiments=experiments)]
    return found
