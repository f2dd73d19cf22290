"""Find a run in a store: by the results that it holds, or as a command line names it."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from mlflow.entities import Run, ViewType

from .. import processes
from ..errors import ToolError
from ..pipeline.row import NOWHERE, Match, RowKey, Standing, StoredRun, match
from ..pipeline.tags import EXPERIMENT, FOUND_BY, KEPT, LIVE, LOCK, UNREAD, WHOLE, tagged
from .store import Store, exists


def find_run(store: Store, wanted: Mapping[RowKey, str]) -> Match:
    """Return where results go, given by their digests; raises what the store raises.

    A search for any of them finds all runs that have all of them.
    """
    runs: dict[str, Run] = {}
    where = Match()
    for name, digest in wanted.items():
        for run in store.runs(f"tags.`{LOCK}{name}` = '{digest}'", ViewType.ALL):
            runs[run.info.run_id] = run
        oldest = sorted(runs.values(), key=lambda run: (run.info.start_time, run.info.run_id))
        where = match(wanted, [stored_run(run, store) for run in oldest])
        if where.has:
            break
    return where


def stored_run(run: Run, store: Store) -> StoredRun:
    """Return what a run says of itself."""
    tags = run.data.tags
    # What this process has left RUNNING, it has failed to complete.
    at_work = run.info.status == "RUNNING" and not (
        processes.has_ended(tags) or processes.is_own(tags)
    )
    standing, declared = whole(tags.get(WHOLE, "")) or (NOWHERE, "")
    return StoredRun(
        run_id=run.info.run_id,
        name=run.info.run_name or "",
        digests={RowKey(name): each for name, each in tagged(tags, LOCK).items()},
        is_deleted=run.info.lifecycle_stage == "deleted",
        is_live=bool(tags.get(LIVE)),
        is_closed=at_work or bool(store.why_no_files(run)),
        standing=standing,
        declared=declared,
        unread=tags.get(UNREAD, ""),
        kept=tags.get(KEPT, ""),
    )


def whole(text: str) -> tuple[Standing, str] | None:
    """Return what the tag `WHOLE` says: where the results stand, and what is declared of them."""
    try:
        rank, time, commit, declared = text.split(" ")
        return Standing(int(rank), int(time), commit), declared
    except ValueError:
        return None


def whole_text(at: Standing, declared: str) -> str:
    """Return the text of the tag `WHOLE`."""
    return f"{at.rank} {at.time} {at.commit} {declared}"


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
