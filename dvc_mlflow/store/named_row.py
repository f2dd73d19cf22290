"""Find the row that a command line names: by its name, digits or experiment, or by its run id."""

import re
from collections.abc import Iterator
from pathlib import Path

from mlflow.entities import Run, ViewType

from ..errors import ToolError
from ..pipeline.tags import EXPERIMENT, FOUND_BY
from .store import Store, exists


def read_run(root: Path, named: str) -> Run:
    """Return the one run that is called so; raises `ToolError` if there is none, or several."""
    if not exists(root):
        raise ToolError(f"{root}: has no mlflow.db, and MLFLOW_TRACKING_URI is not set")
    store = Store.existing(root)
    with store.errors_reported():
        if re.fullmatch("[0-9a-f]{32}", named):
            experiments = store.all_experiments()
            runs = [*store.runs(f"attributes.run_id = '{named}'", ViewType.ALL, experiments)]
        else:
            runs = _called(store, named)
    if not runs:
        rule = "ROW must be a row's name, four or more of its digits, its run id or its experiment"
        raise ToolError(f"{rule}; there is none for {named!r:.200}")
    if len(runs) > 1:
        some = ", ".join(f"{run.info.run_name!r} ({run.info.run_id})" for run in runs[:5])
        raise ToolError(f"{named!r}: {len(runs)} rows are called so: {some}; name one run id")
    return runs[0]


def _called(store: Store, named: str) -> list[Run]:
    """Return the runs with this name; if there is none, those of the experiment, or these digits.

    Digits can be of a former name, in this store or in one that was lost.
    """
    if not named:
        return []
    quote = '"' if "'" in named else "'"
    can_ask = quote not in named and "\\" not in named
    is_it = f" = {quote}{named}{quote}"

    def runs(query: str) -> Iterator[Run]:
        return store.runs(query, experiments=store.all_experiments())

    asked = f"attributes.run_name{is_it}" if can_ask else ""
    if matches := [run for run in runs(asked) if run.info.run_name == named]:
        return matches
    asked = f"tags.`{EXPERIMENT}`{is_it}" if can_ask else ""
    if matches := [run for run in runs(asked) if run.data.tags.get(EXPERIMENT) == named]:
        return matches
    digits = re.search("^[0-9a-f]{4,7}$|(?:^|(?<= ))[0-9a-f]{7}(?= |$)", named)
    if not digits:
        return []
    matches = [*runs(f"tags.`{FOUND_BY}` LIKE '%{digits[0]}%'")]
    own = [run for run in matches if _has(run.info.run_name or "", digits[0])]
    return own or [run for run in matches if _has(run.data.tags[FOUND_BY], digits[0])]


def _has(words: str, digits: str) -> bool:
    return any(word.startswith(digits) for word in words.split())
