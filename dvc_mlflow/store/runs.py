"""The runs of a store by the results that they hold: where a result goes."""

from collections.abc import Mapping

from mlflow.entities import Run, ViewType

from .. import processes
from ..pipeline.row import NOWHERE, Match, RowKey, Standing, StoredRun, match
from ..pipeline.tags import KEPT, LIVE, LOCK, UNREAD, WHOLE, tagged
from .store import Store


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
