"""Record the results of git's history and of the checkout: each distinct one once."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from ..git import ask
from ..pipeline.row import Row
from ..pipeline.row_stages import as_key, divided
from ..pipeline.stages import Stage
from ..pipeline.stored_run import Match, StoredRun
from ..project import Project, ProjectAt
from ..rows.commits import Commits, committed
from ..rows.content import fetch
from ..rows.found_results import Digests, FoundResult, FoundResults
from ..rows.history import PastResults, Round
from ..rows.result import Result, State, columns, experiment, now_or_none
from ..rows.row_of import row_of, wanted
from ..rows.snapshots import has_lock
from ..store.doubles import trash_double
from ..store.experiment_stores import AT_MOST, ExperimentStores
from ..store.runs import AllRuns, Runs
from ..store.store import Store
from ..store.upsert import Written, planned, upsert
from .changed_inputs import ChangedInputs
from .leftovers import Leftovers
from .one_result import read_row, release_kept

_AT_ONCE = 16
_GONE = "somebody has deleted its row just now; `dvc-mlflow record` makes it again"


class Options(NamedTuple):
    """How results are recorded."""

    dry_run: bool = False
    """Write nothing."""
    deleted: bool = False
    """Also restore rows from the trash."""
    fetch: bool = False
    """Fetch what a row shows from DVC's remote."""


class Recording:
    """What is recorded of a project: `written` and `notes` say what became of it."""

    def __init__(
        self, project: Project, root: Path, options: Options, *, reads_all: bool = False
    ) -> None:
        self._project, self._past, self._options = project, ProjectAt(project), options
        self._root = root
        create = not options.dry_run
        self.stores = ExperimentStores(root, project.folder, create=create, reads_all=reads_all)
        self.written: list[tuple[Store, Written]] = []
        self.rows: list[Row] = []
        """What would be written, if nothing is."""
        self.trashed: dict[str, tuple[Store, Written]] = {}
        """What is left in MLflow's trash, by run."""
        self.changed: dict[str, None] = {}
        """Why results are left out during whose making inputs changed, and what to do."""
        self.n_results = 0
        self.left_out: dict[str, list[str]] = defaultdict(list)
        """The commits in which numbers of a recorded stage are in no row, by the reason."""
        self._unread: set[tuple[str, str]] = set()
        """The files that rows lack, after the digests of their results; a note says so."""
        self.digests: set[str] = set()
        """Of the stages' results that were found."""
        self.hints: dict[str, str] = {}
        """What would make the table of an experiment say more, or ""."""
        self.notes: dict[str, list[str]] = defaultdict(list)
        """The commits about which something has to be said, by what; "" is the checkout."""
        self._pending: list[tuple[Result, Row, Match]] = []
        self._changed: dict[str, ChangedInputs] = {}
        self._left: dict[str, Leftovers] = {}
        self._measures: dict[str, dict[str, None]] = defaultdict(dict)
        """The metrics of the rows that were written, best first."""
        self._n_written: Counter[str] = Counter()
        self._n_shown: Counter[str] = Counter()
        """The rows with which its table was brought up to date; all five by experiment."""
        self._bar: tqdm | None = None
        """How much of git's history is read."""

    def record_commits(
        self, commits: Commits, chosen: Sequence[str] = (), *, note_left_out: bool = False
    ) -> None:
        """Record the results of commits; `chosen` are the stages to record, by name.

        With `note_left_out`, fill `left_out`, for which git is read again. Raises `ToolError`.
        """
        found = FoundResults(self._project, now_or_none(self._project), chosen)
        past = PastResults(self._project, self._past, self._progress)
        at_once = bool(chosen)  # a name that no commit has is said before anything is written
        with self._reading():
            rounds = past.rounds(commits, found.stages, at_once=at_once)
            self._record(self._with_left_out(rounds, found) if note_left_out else rounds, found)
        for why, unread in past.unread.items():
            self.notes[why] += unread

    def record_state(
        self,
        state: State,
        chosen: Sequence[str] = (),
        is_wanted: Callable[[Result], bool] = lambda _: True,
    ) -> None:
        """Record the wanted results of one state: a commit's, or the checkout's.

        `chosen` are the stages to record, by name. If the store lacks something of the results, the
        rest of history says which commits have them. Raises `ToolError`.
        """
        for each in map(state.result, divided(state.pipeline, state.stages)):
            outdated = [s for s in each.row_stages.scope() if s.name not in state.digests]
            if any(s.name in state.locked for s in outdated):
                self._counts(each, outdated)
        results = [each for each in state.results() if is_wanted(each)]
        is_committed = bool(state.commit) or has_lock(self._project.top, self._project.folder)
        if chosen or self._lacks_one(results, is_committed=is_committed):
            self._record_with_history(state, chosen, is_wanted)
        elif not self._options.dry_run:
            self._settle_leftovers(results)

    def _record_with_history(
        self, state: State, chosen: Sequence[str], is_wanted: Callable[[Result], bool]
    ) -> None:
        """Record the results of a state, with what all commits that have them declare of them."""
        top = self._project.top
        now = now_or_none(self._project) if state.commit else state.pipeline
        found = FoundResults(self._project, now, chosen)
        past = PastResults(self._project, self._past, self._progress)
        is_in_git = state.commit or ask("rev-parse", "-q", "--verify", "HEAD", cwd=top)
        with self._reading():
            if is_in_git:
                given = past.round_of(state, committed(top, state.commit))
            else:
                given = past.of_checkout(state)
            self._record([given], found, is_wanted)

    def _record(
        self,
        rounds: Iterable[Round],
        found: FoundResults,
        is_wanted: Callable[[Result], bool] = lambda _: True,
    ) -> None:
        known: dict[Digests, Result] = {}
        for each in rounds:
            there = {k: one for k, one in found.of(each).items() if is_wanted(one.result)}
            new = [one for key, one in there.items() if key not in known]
            # The newest first; rows' own commits have what lies between two stages, and wait.
            new.sort(key=lambda one: not one.best.is_dirty)
            for one in [one for one in reversed(new) if self._is_lacking(one)]:
                self._add(one)
            self._send()
            known |= {key: one.result for key, one in there.items()}
        self.n_results += len(known)
        self.digests.update(digest for key in known for _, digest in key)
        if not self._options.dry_run:
            for store in self.stores:
                self._show(store)
            self._settle([*known.values()])
            self._settle_leftovers([*known.values()])

    def _with_left_out(self, rounds: Iterable[Round], found: FoundResults) -> Iterator[Round]:
        """Yield rounds, and note what is in no row after each is recorded."""
        for each in rounds:
            yield each
            for why, commit in found.left_out(each, self._unread):
                self.left_out[why].append(commit)

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """Read commits in the block, and show on a terminal how many; then leave the last one."""
        with self._past, tqdm(unit=" commits", leave=False, disable=None) as self._bar:
            yield

    def _progress(self, n: int) -> None:
        """Say that one more state is read, or that there are `n` to read."""
        if self._bar is not None:
            self._bar.total = n or self._bar.total
            self._bar.update(not n)

    def rows_of(self, results: Sequence[Result]) -> Iterator[tuple[Store, StoredRun]]:
        """Yield the rows that have results, but for those in MLflow's trash."""
        for result in (result for result in results if result.digests):
            store, runs = self._place(result)
            with store.errors_reported(AT_MOST):
                runs.look_again(result.digests)
                has = runs.find(result.digests).has
            if has and not has.is_deleted:
                yield store, has

    def _lacks_one(self, results: Sequence[Result], *, is_committed: bool) -> bool:
        """Whether the store lacks something of some results, or the commit that has them.

        Or whether it has one of them twice.
        """
        for result in map(self._apart, results):
            if result.digests and self._lacks(result):
                return True
            store, runs = self._place(result)
            with store.errors_reported(AT_MOST):
                has = runs.find(result.digests).has if result.digests else None
                if has and is_committed and has.standing.rank < 2:
                    return True
                if has and runs.doubles(result.digests):
                    return True
        return False

    def _is_lacking(self, each: FoundResult) -> bool:
        result = each.result = self._apart(each.result)
        return bool(result.digests) and self._lacks(result) and self._counts(result, result.scope())

    def _counts(self, result: Result, stages: Sequence[Stage]) -> bool:
        """Whether the store says nothing against the results of stages which it lacks."""
        store, runs = self._place(result)
        with store.errors_reported(AT_MOST):
            if store.experiment not in self._changed:
                self._changed[store.experiment] = ChangedInputs(store)
            where = runs.find(result.digests)
        known = [digest for run in where if run for digest in run.complete.values()]
        why = self._changed[store.experiment].why_not(result.state, stages, known)
        self.changed |= {why: None} if why else {}
        return not why

    def _lacks(self, result: Result) -> bool:
        store, runs = self._place(result)
        with store.errors_reported(AT_MOST):
            there = runs.find(result.digests).has
        if there is None or self._options.deleted:
            return there is None or there.is_deleted or there.lacks(wanted(result))
        if there.is_deleted:
            left = Written("deleted", "", there.run_id, [*result.digests])
            self.trashed[there.run_id] = store, left
            return False
        return there.lacks(wanted(result))

    def _apart(self, result: Result) -> Result:
        """Return the part of a result that no other run has, if no run has all of it."""
        if not result.digests:
            return result
        store, runs = self._place(result)
        keys = {
            name: {as_key(stage.group), as_key(stage.label)}
            for name, stage in result.row_stages.members.items()
        }
        with store.errors_reported(AT_MOST):
            return replace(result, digests=runs.apart(result.digests, keys))

    def _place(self, result: Result) -> tuple[Store, Runs]:
        name = experiment(result.row_stages)
        return self.stores.of(name, columns(result.row_stages)), self.stores.runs(name)

    def _add(self, each: FoundResult) -> None:
        """Read a row while the project is where its result is, and send it with others."""
        if each.snapshot is None:
            self._past.leave()
            self._project.pipeline()  # its files are again those of the checkout
        else:
            self._past.at(each.snapshot.commit, each.snapshot.definitions, each.snapshot.locks)
        result = replace(each.result, was_fetched=self._options.fetch)
        if self._options.fetch:
            for note in fetch(result):
                self._note(note, result.state.commit)
        store, runs = self._place(result)
        others = [other for other, *_ in self._pending]
        if any(has_one_of(result, o) or self._place(o)[0] is not store for o in others):
            self._send()
        with store.errors_reported(AT_MOST):
            where = runs.find(result.digests)
        row = self._read(result, where)
        for name, part in row.parts.items():
            self._unread |= {(result.digests[name], path) for path in part.unread}
        if self._options.dry_run:
            with store.errors_reported(AT_MOST):
                self._take(result, store, planned(store, row, where))
            return
        self._pending.append((result, row, where))
        if len(self._pending) == (_AT_ONCE if store.is_remote else 1):
            self._send()

    def _read(self, result: Result, where: Match) -> Row:
        if self._options.dry_run:
            row = row_of(result, where.has or where.joins)
            self.rows.append(row)
            return row
        return read_row(result, self._root, where)

    def _send(self) -> None:
        """Write the rows that were read, several at a time to a server."""
        pending, self._pending = self._pending, []
        if not pending:
            return
        store, runs = self._place(pending[0][0])

        if store.experiment not in self._left:
            with store.errors_reported(AT_MOST):
                self._left[store.experiment] = Leftovers(store)
        left = self._left[store.experiment]

        def write(each: tuple[Result, Row, Match]) -> Written:
            result, row, before = each
            # Before the lock was taken, another process can have written it, or settled a double.
            runs.look_again(digests := row.wanted.digests)
            where, names = runs.find(digests), [*digests]
            if has := where.has:
                if has != before.has and not (has.is_deleted or has.lacks(row.wanted)):
                    return Written("", has.name, has.run_id, names)
            elif before.has:  # the row has only what that run lacked
                return Written("", before.has.name, before.has.run_id, names, [_GONE])
            live = None if where.has or where.joins else left.begun_for(result)
            release_kept(store, row, where)
            return upsert(store, row, where, live)

        # The lock is held until all threads have ended, also if the server takes too long.
        with store.lock(), ThreadPoolExecutor(_AT_ONCE) as pool, store.errors_reported(AT_MOST):
            send: Callable[..., Iterator[Written]] = pool.map if store.is_remote else map
            for (result, *_), done in zip(pending, send(write, pending), strict=True):
                if done.verb:
                    self._measures[store.experiment] |= dict.fromkeys(done.measures)
                    self._n_written[store.experiment] += 1
                if done.run:
                    runs.add(done.run, result.origin.time)
                self._take(result, store, done)
            n = self._n_written[store.experiment]
            if n & (n - 1) == 0:  # while a history is read, ever more seldom
                self._show(store)

    def _show(self, store: Store) -> None:
        """Bring a table up to the rows that were written, unless it is."""
        name = store.experiment
        if self._n_shown[name] == self._n_written[name]:
            return
        with store.errors_reported(AT_MOST):
            self.hints[name] = store.show([*self._measures[name]])
        self._n_shown[name] = self._n_written[name]

    def _settle(self, results: Sequence[Result]) -> None:
        """Leave one row of each result: clones that share a store can write it at the same time.

        All of them leave the same one. A later `record` finds what a live row has made double.
        """
        added = {store.experiment for store, done in self.written if done.verb == "added"}
        fresh: dict[str, Runs] = {}
        for result in (result for result in results if result.digests):
            store, runs = self._place(result)
            if store.is_shared and store.experiment in added and isinstance(runs, AllRuns):
                if store.experiment not in fresh:
                    with store.errors_reported(AT_MOST):
                        fresh[store.experiment] = AllRuns(store)
                runs = fresh[store.experiment]
            with store.errors_reported(AT_MOST):
                doubles = runs.doubles(result.digests)
                kept = runs.find(result.digests).has if doubles else None
            for double in doubles:
                with store.lock(), store.errors_reported():
                    said = trash_double(store, double, kept.run_id if kept else "", result.digests)
                if said:
                    self._note(said, result.state.commit)

    def _settle_leftovers(self, results: Sequence[Result]) -> None:
        """Let go what a killed follower has left, if its stage has ended well after all."""
        for store in self.stores:
            with store.errors_reported(AT_MOST):
                left = Leftovers(store)
            if left:
                own = [each for each in results if self._place(each)[0] is store]
                with store.lock(), store.errors_reported(AT_MOST):
                    left.settle(own)

    def _take(self, result: Result, store: Store, written: Written) -> None:
        self.written.append((store, written))
        for note in written.notes:
            self._note(note, result.state.commit)
        if self._bar is not None:
            self._bar.set_postfix(rows=len(self.written))

    def _note(self, text: str, commit: str) -> None:
        if commit not in self.notes[text]:
            self.notes[text].append(commit)


def has_one_of(result: Result, other: Result) -> bool:
    """Whether two results have one of a stage in common."""
    return bool(result.digests.items() & other.digests.items())
