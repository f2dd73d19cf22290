"""Bring one result to MLflow, and let go what git has kept for it alone."""

from collections.abc import Mapping
from pathlib import Path

from ..pipeline.row import Row
from ..pipeline.stored_run import Match
from ..pipeline.tags import KEPT, known_keys
from ..rows import kept_trees
from ..rows.result import Result
from ..rows.row_of import keep, row_of
from ..store.runs import Runs
from ..store.store import Store
from ..store.upsert import Live, Written, upsert


def read_row(result: Result, root: Path, where: Match) -> Row:
    """Return the row of a result, for the run where it goes; git keeps what nobody has committed.

    `root` is the main repository.
    """
    if where.has and not where.has.is_deleted:
        return row_of(result, where.has)
    kept, notes = keep(result, root)  # of what is in the trash, the user may have made git forget
    return row_of(result, where.has or where.joins, kept=kept, notes=notes)


def bring(store: Store, runs: Runs, result: Result, live: Live | None = None) -> Written:
    """Bring one result to MLflow, if need be from its trash; the store's lock must be held.

    Raises what the store raises.
    """
    where = runs.find(result.digests)
    row = read_row(result, store.root, where)
    release_kept(store, row, where)
    return upsert(store, row, where, live)


def release_kept(store: Store, row: Row, where: Match) -> None:
    """Let the refs go that have kept a row's files while its experiment ran: it has a commit now.

    That comes before the row names this commit: killed in between, both are done again.
    """
    had, at = where.has or where.joins, row.wanted.standing
    if had and at.is_experiment and at.is_better(had.standing):
        release(store, had.run_id, had.kept)


def release(store: Store, run_id: str, kept: Mapping[str, str]) -> list[str]:
    """Delete the refs of those commits that no row but one of this store names; return them.

    Anybody can have written the commits, by stage. Raises what the store raises.
    """
    every = store.all_experiments()  # dvc.yaml's rows can be in several
    others = {
        commit
        for name, commit in kept.items()
        if kept_trees.is_hash(commit)
        and any(
            run.info.run_id != run_id
            for key in known_keys(f"{KEPT}{name}")
            for run in store.runs(f"tags.`{key}` = '{commit}'", experiments=every)
        )
    }
    own = {commit for commit in kept.values() if kept_trees.is_hash(commit)} - others
    return [commit for commit in sorted(own) if kept_trees.forget(store.root, commit)]
