"""Record the results of git's history and of the checkout: each distinct one once."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from ..errors import ToolError
from ..git import ask
from ..pipeline.declarations import Declarations
from ..pipeline.digests import result_digests
from ..pipeline.lineages import as_key, lineages, names_recorded, recorded
from ..pipeline.row import Row
from ..pipeline.stages import Pipeline, Stage
from ..pipeline.stored_run import Match, StoredRun
from ..pipeline.tags import KEPT, known_keys
from ..project import Project, ProjectAt
from ..rows import kept_trees
from ..rows.commits import Commits, committed, stages_of_rows
from ..rows.content import fetch
from ..rows.history import PastResults, Round
from ..rows.origin import Origin
from ..rows.result import Result, State, columns, experiment, now_or_none, of
from ..rows.row_of import keep, row_of, standing, wanted
from ..rows.snapshots import Snapshot, has_lock
from ..store.experiment_stores import AT_MOST, ExperimentStores
from ..store.runs import AllRuns, Runs
from ..store.store import Store
from ..store.upsert import Live, Written, planned, settle, upsert
from .changed_inputs import ChangedInputs
from .leftovers import Leftovers

_AT_ONCE = 16
_GONE = "somebody has deleted its row just now; `dvc-mlflow record` makes it again"


_Digests = frozenset[tuple[str, str]]
"""The digests of a result by the stages' names in its row."""


class Options(NamedTuple):
    """How results are recorded."""

    dry_run: bool = False
    """Write nothing."""
    deleted: bool = False
    """Also restore rows from the trash."""
    fetch: bool = False
    """Fetch what a row shows from DVC's remote."""


@dataclass
class _Found:
    """A result, and the states that have it."""

    best: Origin
    """That of the best standing."""
    result: Result
    """As it is in the state from which its files are read."""
    snapshot: Snapshot | None
    is_whole: bool
    """Whether that state declares all its models itself."""
    names: dict[str, None] = field(default_factory=dict)
    """The branches, tags and experiments that have it."""


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
        """The commits in which a recorded stage has numbers, but no result, by the reason."""
        self._looked: set[str] = set()
        """The commits that were searched for these; several rounds read the same ones."""
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

    def record(
        self,
        commits: Commits | None = None,
        chosen: Sequence[str] = (),
        *,
        here: State | None = None,
        only: State | None = None,
        is_wanted: Callable[[Result], bool] | None = None,
    ) -> None:
        """Record the results of commits and of the checkout, which is the state `here`.

        `chosen` are the stages to record, by name. With `only`, no other results than those that
        are in this state count, and none that is not wanted. Raises `ToolError`.
        """
        now = here.pipeline if here else now_or_none(self._project)
        found: dict[_Digests, Result] = {}
        hidden = None if commits else True  # on a terminal
        with self._past, tqdm(unit=" commits", leave=False, disable=hidden) as self._bar:
            for each in self._rounds(commits, chosen, now, here, only):
                _check(chosen, [*(s.pipeline for s in each.states), *([now] if now else [])])
                results = self._results(each, now, chosen, is_wanted)
                new = [one for key, one in results.items() if key not in found]
                # The newest first; rows' own commits have what lies between two stages, and wait.
                new.sort(key=lambda one: not one.best.is_dirty)
                self._write([one for one in reversed(new) if self._is_lacking(one)])
                found |= {key: one.result for key, one in results.items()}
                self._leave_out(each, chosen, now)
            self.n_results += len(found)
            self.digests.update(digest for key in found for _, digest in key)
            if not self._options.dry_run:
                for store in self.stores:
                    self._show(store)
                self._settle([*found.values()])
                self._settle_leftovers([*found.values()])

    def _rounds(
        self,
        commits: Commits | None,
        chosen: Sequence[str],
        now: Pipeline | None,
        here: State | None,
        only: State | None,
    ) -> Iterator[Round]:
        states = PastResults(self._project, self._past, self._progress)
        if commits:

            def own(pipeline: Pipeline) -> list[Stage]:
                return recorded(pipeline, chosen or names_recorded(pipeline, now))

            at_once = bool(chosen)  # a name that no commit has is said before anything is written
            yield from states.rounds(
                commits, own, only=only, is_here=here is not None, at_once=at_once
            )
        elif here:
            own_state = states.of_checkout(here)
            yield Round([own_state], {*own_state.digests.values()})
        for why, unread in states.unread.items():
            self.notes[why] += unread

    def _progress(self, n: int) -> None:
        """Say that one more state is read, or that there are `n` to read."""
        if self._bar is not None:
            self._bar.total = n or self._bar.total
            self._bar.update(not n)

    def _write(self, lacking: Sequence[_Found]) -> None:
        for each in lacking:
            self._add(each)
        self._send()

    def record_state(
        self,
        state: State,
        commit: str = "",
        chosen: Sequence[str] = (),
        *,
        is_wanted: Callable[[Result], bool] | None = None,
    ) -> None:
        """Record the wanted results of one state: a commit's, or the checkout's.

        `chosen` are the stages to record, by name. If the store lacks something of the results, the
        rest of history says which commits have them. Raises `ToolError`.
        """
        top = self._project.top
        for each in map(state.result, lineages(state.pipeline, state.stages)):
            outdated = [s for s in each.lineage.scope() if s.name not in state.digests]
            if any(s.name in state.locked for s in outdated):
                self._counts(each, outdated)
        results = [each for each in state.results() if is_wanted is None or is_wanted(each)]
        is_committed = bool(commit) or has_lock(top, self._project.folder)
        if chosen or self._lacks_one(results, is_committed=is_committed):
            is_git = commit or ask("rev-parse", "-q", "--verify", "HEAD", cwd=top)
            commits = committed(top, commit) if is_git else None
            here = None if commit else state
            self.record(commits, chosen, here=here, only=state, is_wanted=is_wanted)
        elif not self._options.dry_run:
            self._settle_leftovers(results)

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

    def _results(
        self,
        given: Round,
        now: Pipeline | None,
        chosen: Sequence[str],
        is_wanted: Callable[[Result], bool] | None,
    ) -> dict[_Digests, _Found]:
        """Return the results of a round, with all that any of its states declares of them."""
        declared = Declarations()
        for state in given.states:
            declared.add(state.pipeline, state.digests)
        if now:
            declared.add_checkout(now)
        found: dict[_Digests, _Found] = {}
        for state in given.states:
            if given.digests.isdisjoint(state.digests.values()):
                continue
            pipeline = declared.applied(state.pipeline, state.digests)
            own = chosen or names_recorded(pipeline, now)
            for result in of(self._project, pipeline, state.origin, own).results():
                stage = self._kept.get(state.snapshot.commit) if state.snapshot else None
                if stage and stage != result.head.name:
                    continue  # a row's own commit gives that row and no other
                if not {*result.digests.values()} <= given.digests:
                    continue
                if is_wanted is not None and not is_wanted(result):
                    continue
                is_whole = _declares_models(state.pipeline, result)
                new = _Found(state.origin, result, state.snapshot, is_whole)
                each = found.setdefault(frozenset(result.digests.items()), new)
                each.names |= dict.fromkeys(state.snapshot.names if state.snapshot else ())
                # The oldest comes first, also where clocks went back.
                if standing(state.origin).rank > standing(each.best).rank:
                    each.best = state.origin
                if state.snapshot is None or not each.is_whole:
                    each.result, each.snapshot, each.is_whole = result, state.snapshot, is_whole
        for each in found.values():
            origin = each.best._replace(names=[*each.names])
            each.result = replace(each.result, state=replace(each.result.state, origin=origin))
        return found

    def _leave_out(self, given: Round, chosen: Sequence[str], now: Pipeline | None) -> None:
        """Note which recorded stages have no result in the commits of a round, but numbers."""
        for state in given.states:
            commit = state.snapshot.commit if state.snapshot else ""
            if not commit or state.origin.is_dirty or commit in self._looked:
                continue
            self._looked.add(commit)
            _, reasons = result_digests(state.pipeline)
            for stage in recorded(state.pipeline, chosen or names_recorded(state.pipeline, now)):
                why, paths = reasons.get(stage.name), state.pipeline.metrics_paths(stage)
                has_any = stage.has_result or any(self._project.committed(commit, p) for p in paths)
                if why and has_any:
                    self.left_out[f"stage {stage.name} is not recorded: {why}"].append(commit)

    @cached_property
    def _kept(self) -> Mapping[str, str]:
        return stages_of_rows(self._project.top)

    def _is_lacking(self, each: _Found) -> bool:
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
        """Return a result without what other runs have to themselves, if no run has it whole."""
        if not result.digests:
            return result
        store, runs = self._place(result)
        keys = {
            name: {as_key(stage.group), as_key(stage.label)}
            for name, stage in result.lineage.members.items()
        }
        with store.errors_reported(AT_MOST):
            return replace(result, digests=runs.apart(result.digests, keys))

    def _place(self, result: Result) -> tuple[Store, Runs]:
        name = experiment(result.lineage)
        return self.stores.of(name, columns(result.lineage)), self.stores.runs(name)

    def _add(self, each: _Found) -> None:
        """Read a row while the project is where its result is, and send it with others."""
        if each.snapshot is None:
            self._past.leave()
            self._project.pipeline()  # its files are again those of the checkout
        else:
            self._past.at(each.snapshot.commit, each.snapshot.definitions, each.snapshot.locks)
        result = replace(each.result, was_fetched=self._options.fetch)
        if self._options.fetch:
            for note in fetch(result):
                self._note(note, _commit(result))
        store, runs = self._place(result)
        others = [other for other, *_ in self._pending]
        if any(has_one_of(result, o) or self._place(o)[0] is not store for o in others):
            self._send()
        with store.errors_reported(AT_MOST):
            where = runs.find(result.digests)
        row = self._read(result, where)
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
            _release(store, row, where)
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
                    said = settle(store, double, kept.run_id if kept else "", result.digests)
                if said:
                    self._note(said, _commit(result))

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
            self._note(note, _commit(result))
        if self._bar is not None:
            self._bar.set_postfix(rows=len(self.written))

    def _note(self, text: str, commit: str) -> None:
        if commit not in self.notes[text]:
            self.notes[text].append(commit)


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
    _release(store, row, where)
    return upsert(store, row, where, live)


def _release(store: Store, row: Row, where: Match) -> None:
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


def has_one_of(result: Result, other: Result) -> bool:
    """Whether two results have one of a stage in common."""
    return bool(result.digests.items() & other.digests.items())


def _check(chosen: Sequence[str], pipelines: Sequence[Pipeline]) -> None:
    """Raise `ToolError` if no pipeline has a stage with a chosen name."""
    stages = (stage for pipeline in pipelines for stage in pipeline.stages.values())
    known = {name for stage in stages for name in (stage.name, stage.group)}
    for name in chosen:
        if name not in known:
            raise ToolError(f"--stages: no stage is named {name!r}; known are {sorted(known)}")


def _declares_models(pipeline: Pipeline, result: Result) -> bool:
    """Whether a pipeline itself declares all models of a result, and in the same way."""
    own = [model for stage in pipeline.stages.values() for model, _ in pipeline.models_of(stage)]
    return all(model in own for _, model, _ in result.models())


def _commit(result: Result) -> str:
    return result.origin.kept.commit if result.origin.kept else ""
