"""Record the results of git's history and of the checkout: each distinct one once."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, nullcontext
from pathlib import Path
from threading import Lock
from typing import Any

from tqdm import tqdm

from ..pipeline.row import Match, Row, StoredRun
from ..pipeline.tags import KEPT
from ..project.at_commits import ProjectAt
from ..project.definitions import read_pipeline
from ..project.project import Project
from ..rows import kept_trees
from ..rows.commits import Commits, Snapshot, committed
from ..rows.content import fetch
from ..rows.history import FoundResult, history_of
from ..rows.result import Result, State, pipeline_now, table_of
from ..rows.row_of import row_of, wanted
from ..store.runs import find_run
from ..store.store import ExperimentStores, Store
from ..store.upsert import Written, leave, planned, upsert
from .begun import begun_for

_AT_ONCE = 16
"""Rows that are written to a server together."""
_GONE = "somebody has deleted its row just now; `dvc-mlflow record` makes it again"


class Recording:
    """What is recorded of a project: `written` and `notes` say what became of it.

    `stores` are opened already, if any are given. `ended` are begun runs whose stages have ended,
    each with the inputs that were written while its stage ran. With `dry_run`, nothing is written;
    `fetch` gets what rows show from DVC's remote.
    """

    def __init__(
        self,
        project: Project,
        root: Path,
        stores: ExperimentStores | None = None,
        ended: Mapping[str, Sequence[str]] | None = None,
        *,
        dry_run: bool = False,
        fetch: bool = False,
    ) -> None:
        self.project, self.root, self._past = project, root, ProjectAt(project)
        self.dry_run, self.fetch = dry_run, fetch
        self.stores = stores or ExperimentStores(root, project.folder, create=not dry_run)
        self._ended = ended or {}
        self._chosen, self._choosing = set[str](), Lock()
        """The begun runs that rows have got; of several results at once, one gets a run."""
        self.written: list[tuple[Store, Written]] = []
        self.results: list[Result] = []
        """What was found, recorded before or now."""
        self.reasons: Mapping[str, str] = {}
        """Why stages of a state have no result, by stage."""
        self.unread: set[tuple[str, str]] = set()
        """The files that rows lack, after the digests of their results; a note says so."""
        self.left_out: dict[str, list[str]] = defaultdict(list)
        """The commits in which numbers of a recorded stage are in no row, by the reason."""
        self.notes: dict[str, list[str]] = defaultdict(list)
        """The commits about which something has to be said, by what; "" is the checkout."""
        self.git_lacks = False
        """Whether git has not all that was to be read, as in a partial clone."""

    @property
    def digests(self) -> set[str]:
        """Those of the stages' results that were found."""
        return {digest for each in self.results for digest in each.digests.values()}

    def record_commits(self, commits: Commits) -> None:
        """Record the results of commits; raises `ToolError`."""
        with closing(self._past):
            now = pipeline_now(self.project)
            history = history_of(self.project, self._past, commits, now, _with_bar)
            entries = history.results()
            self._record(entries)
        self.notes |= history.unread
        self.git_lacks = any(why.startswith("git lacks ") for why in history.unread)
        for why, commit, told in history.left_out:
            if told not in self.unread:
                self.left_out[why].append(commit)
        self.results = [each.result for each in entries]
        self._show()

    def record_state(
        self, state: State, is_wanted: Callable[[Result], bool] = lambda _: True
    ) -> None:
        """Record the wanted results of one state: a commit's, or the checkout's.

        If the store lacks something of them, history says which commits have them, too. Raises
        `ToolError`.
        """
        self.results = [each for each in state.results() if is_wanted(each)]
        self.reasons = state.reasons
        if [each for each in self.results if self._lacking(each, can_rise=True)]:
            commits = committed(self.project.top, state.commit)
            now = pipeline_now(self.project) if state.commit else state.pipeline
            with closing(self._past):
                history = history_of(self.project, self._past, commits, now, iter, of=state)
                self._record([one for one in history.results() if is_wanted(one.result)])
        self._show()

    def is_new(self, result: Result) -> bool:
        """Whether no row has a result, not even in MLflow's trash."""
        return self._find(result)[1].has is None

    def rows_of(self, results: Sequence[Result]) -> Iterator[tuple[Store, StoredRun]]:
        """Yield the rows that have results, but for those in MLflow's trash."""
        for result in results:
            store, where = self._find(result)
            if where.has and not where.has.is_deleted:
                yield store, where.has

    def _store(self, result: Result) -> Store:
        return self.stores.of(*table_of(result.row_stages))

    def _find(self, result: Result) -> tuple[Store, Match]:
        store = self._store(result)
        with store.errors_reported():
            return store, find_run(store, result.digests)

    def _lacking(self, result: Result, *, can_rise: bool = False) -> Match | None:
        """Return where a result goes if the store lacks something of it, or a commit with it."""
        store, where = self._find(result)
        if (has := where.has) is None or has.is_live:
            return where
        if has.is_deleted:
            left = Written("deleted", has.name, has.run_id, [*result.digests])
            self.written += [(store, left)] if (store, left) not in self.written else []
            return None
        is_lacking = has.lacks(wanted(result)) or (can_rise and has.standing.rank < 2)
        return where if is_lacking else None

    def _record(self, entries: Sequence[FoundResult]) -> None:
        """Read the rows of results that the store lacks, and write them.

        A server is asked for several at a time, and gets as many.
        """
        stores = [self._store(entry.result) for entry in entries]
        at_once = _AT_ONCE if any(store.is_remote for store in stores) else 1
        with ThreadPoolExecutor(at_once) as pool:
            each: Callable[..., Iterator[Any]] = map if at_once == 1 else pool.map
            for start in range(0, len(entries), at_once):
                some = entries[start : start + at_once]
                places = [*each(self._lacking, [entry.result for entry in some])]
                lacking = [(e, at) for e, at in zip(some, places, strict=True) if at]
                rows = [(entry.result, self._read(entry, at), at) for entry, at in lacking]
                if rows:
                    lock = nullcontext() if self.dry_run else stores[0].lock()  # one for all
                    with lock, stores[0].errors_reported():
                        for (result, *_), done in zip(rows, each(self._bring, rows), strict=True):
                            self._take(result, self._store(result), done)

    def _read(self, entry: FoundResult, where: Match) -> Row:
        """Return the row of a result as its newest commit has that, or the checkout."""
        if (snapshot := entry.snapshot) is None:
            self._past.close()
            read_pipeline(self.project)  # its files are again those of the checkout
        else:
            self._past.at(snapshot.commit, snapshot.definitions)
        result = entry.result
        for note in fetch(result) if self.fetch else ():
            self._note(note, result.state.commit)
        row = row_of(result, where.complete, None if self.dry_run else self.root)
        for name, part in row.parts.items():
            self.unread |= {(result.digests[name], path) for path in part.unread}
        return row

    def _bring(self, what: tuple[Result, Row, Match]) -> Written:
        """Bring a row to MLflow, or say only what would be done.

        Unless nothing is written, the store's lock must be held. Raises what the store raises.
        """
        result, row, where = what
        store, wants = self._store(result), row.wanted
        if self.dry_run:
            return planned(store, row, where)
        where = find_run(store, wants.digests)  # others can have written meanwhile
        had, names = where.run, [*wants.digests]
        with self._choosing:
            begun = begun_for(store, result, row, had.run_id if had else "", self._ended)
            if begun and begun.run.info.run_id in self._chosen:  # another result's, a moment ago
                begun = None
            self._chosen |= {begun.run.info.run_id} if begun else set()
        if had and begun and begun.run.info.run_id != had.run_id:
            leave(store, begun.run.info.run_id, had.run_id, is_used=begun.is_used)
            begun = None
        if had and had.is_live and begun is None:  # its stage goes on
            return Written("", had.name, had.run_id, names)
        if had and had.is_deleted:
            return Written("deleted", had.name, had.run_id, names)
        known = where.complete.digests.keys() if where.complete else set()
        if not ({*names} - known <= row.parts.keys()):
            return Written("", row.name, "", names, [_GONE])  # it has only what that run lacked
        run_id, kept = (had.run_id, had.kept) if had else ("", "")
        if begun:
            run_id, kept = begun.run.info.run_id, begun.run.data.tags.get(KEPT, "")
        if row.tags.get(KEPT, kept) != kept:  # the new tree has all of the former one
            release(store, run_id, kept)  # killed in between, both are done again
        return upsert(store, row, where, begun)

    def _show(self) -> None:
        """Bring the tables of rows that were written up to date, and take names as they show."""
        names = dict[str, str]()
        for store in () if self.dry_run else self.stores:
            done = [written for its, written in self.written if its is store and written.verb]
            if done:
                with store.lock(), store.errors_reported():
                    measures = dict.fromkeys(m for written in done for m in written.measures)
                    names |= store.show([*measures])
        self.written = [(s, w._replace(name=names.get(w.run_id, w.name))) for s, w in self.written]

    def _take(self, result: Result, store: Store, written: Written) -> None:
        self.written.append((store, written))
        for note in written.notes:
            self._note(note, result.state.commit)

    def _note(self, text: str, commit: str) -> None:
        if commit not in self.notes[text]:
            self.notes[text].append(commit)


def _with_bar(states: Sequence[Snapshot]) -> Iterator[Snapshot]:
    """Pass on states, and show on a terminal how many are read."""
    yield from tqdm(states, unit=" commits", leave=False, disable=None)


def release(store: Store, run_id: str, kept: str) -> bool:
    """Delete the ref of a commit if no row but one of this store names it; return whether it went.

    Anybody can have written the commit. Raises what the store raises.
    """
    if not kept_trees.is_hash(kept):
        return False
    runs = store.runs(f"tags.`{KEPT}` = '{kept}'", experiments=store.all_experiments())
    return all(run.info.run_id == run_id for run in runs) and kept_trees.forget(store.root, kept)
