"""Record the results of git's history and of the checkout: each distinct one once."""

from collections import defaultdict
from collections.abc import Sequence, Set
from dataclasses import dataclass, field, replace
from pathlib import Path

from tqdm import tqdm

from ..errors import ToolError
from ..pipeline.declarations import Declarations
from ..pipeline.identity import Known
from ..pipeline.lineages import names_recorded
from ..pipeline.stages import Pipeline
from ..project import Past, Project
from ..store.store import Store
from . import settled
from .batch import Batch, Options
from .commits import Commits
from .completion import unshown
from .content import fetch
from .follow import lags, names_no_commit
from .history import Snapshot
from .matching import Index, Searches
from .origin import Origin
from .result import Result, State, now_or_none, of
from .states import Read, States
from .stores import AT_MOST, Stores
from .write import Written


@dataclass
class _Found:
    """A result, and the states that have it."""

    first: Origin
    """That of the oldest state."""
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
        self,
        project: Project,
        root: Path,
        options: Options,
        index: type[Index] | type[Searches] = Index,
    ) -> None:
        self._project, self._past, self._options = project, Past(project), options
        self.stores = Stores(root, project.folder, index, create=not options.dry_run)
        self.written: list[tuple[Store, Written]] = []
        self.trashed: dict[str, tuple[Store, Written]] = {}
        """What is left in MLflow's trash, by run."""
        self.n_results = 0
        self.notes: dict[str, list[str]] = defaultdict(list)
        """The commits about which something has to be said, by what; "" is the checkout."""
        self._states = States(project, self._past)
        self._batch = Batch(self.stores, root, options, self._take)
        self._bar: tqdm | None = None

    def record(
        self,
        commits: Commits | None = None,
        chosen: Sequence[str] = (),
        *,
        here: State | None = None,
        only: State | None = None,
        stages: Set[str] | None = None,
    ) -> None:
        """Record the results of commits and of the checkout, which is the state `here`.

        `chosen` are the stages to record, by name. With `only`, no other results than those that
        are in this state count; with `stages`, only those that depend on one of these. Raises
        `ToolError`.
        """
        now = here.pipeline if here else now_or_none(self._project)
        with self._past:
            states = [*self._states.of_commits(commits, only)] if commits else []
            if here:
                states.append(self._states.of_checkout(here))
            for why, unread in self._states.unread.items():
                self.notes[why] += unread
            _check(chosen, [*(each.pipeline for each in states), *([now] if now else [])])
            found = self._results(states, now, chosen, only, stages)
            self.n_results += len(found)
            lacking = [each for each in found if self._has_lacking(each)]
            shown = None if commits else True  # on a terminal
            with tqdm(total=len(lacking), unit="row", disable=shown) as self._bar:
                for each in lacking:
                    self._write(each)
                self._batch.send()
            if not self._options.dry_run:
                self._settle([each.result for each in found])

    def lacks(self, state: State, *, is_committed: bool) -> bool:
        """Whether the store lacks something of a state's results, or the commit that has them.

        Or whether it has one of them twice.
        """
        for result in map(self.stores.apart, state.results()):
            has = self.stores.look(result).has if result.digests else None
            if self._lacks(result) or (is_committed and has and names_no_commit(has)):
                return True
            if has and self.stores.index(result.lineage).doubles(result.digests):
                return True
        return False

    def _results(
        self,
        states: Sequence[Read],
        now: Pipeline | None,
        chosen: Sequence[str],
        only: State | None,
        stages: Set[str] | None,
    ) -> list[_Found]:
        """Return the results of these states, with all that any of them declares of a result."""
        declared = Declarations()
        for state in states:
            declared.add(state.pipeline, state.digests)
        if now:
            declared.add(now, {})
        within = {*self._states.of_checkout(only).digests.values()} if only else set()
        found: dict[frozenset[tuple[str, str]], _Found] = {}
        for state in states:
            pipeline = declared.applied(state.pipeline, state.digests)
            own = chosen or names_recorded(pipeline, now)
            for result in of(self._project, pipeline, state.origin, own).results():
                if only and not {*result.digests.values()} <= within:
                    continue
                if stages is not None and not result.depends(stages):
                    continue
                is_whole = _declares_models(state.pipeline, result)
                new = _Found(state.origin, result, state.snapshot, is_whole)
                each = found.setdefault(frozenset(result.digests.items()), new)
                each.names |= dict.fromkeys(state.snapshot.names if state.snapshot else ())
                if state.snapshot is None or not each.is_whole:
                    each.result, each.snapshot, each.is_whole = result, state.snapshot, is_whole
        for each in found.values():
            origin = each.first._replace(names=[*each.names])
            each.result = replace(each.result, state=replace(each.result.state, origin=origin))
        return [*found.values()]

    def _has_lacking(self, each: _Found) -> bool:
        each.result = self.stores.apart(each.result)
        return self._lacks(each.result)

    def _lacks(self, result: Result) -> bool:
        if not result.digests:
            return False
        there = self.stores.look(result).has
        if there is None or self._options.deleted:
            return there is None or there.is_deleted or _is_behind(result, there)
        if there.is_deleted:
            left = Written("deleted", "", there.run_id, [*result.digests])
            self.trashed[there.run_id] = self.stores.of(result.lineage), left
            return False
        return _is_behind(result, there)

    def _write(self, each: _Found) -> None:
        if each.snapshot is None:
            self._past.leave()
            self._project.pipeline()  # its files are again those of the checkout
        else:
            self._past.at(each.snapshot.commit, each.snapshot.definitions, each.snapshot.locks)
        result = replace(each.result, was_fetched=self._options.fetch)
        if self._options.fetch:
            for note in fetch(result):
                self._note(note, _commit(result))
        self._batch.add(result)

    def _settle(self, results: Sequence[Result]) -> None:
        """Leave one row of each result: clones that share a store can write it at the same time.

        All of them leave the same one. A later `record` finds what a live row has made double.
        """
        added = {store.experiment for store, done in self.written if done.verb == "added"}
        fresh: dict[str, Index] = {}
        for result in results:
            store, index = self.stores.of(result.lineage), self.stores.index(result.lineage)
            if store.is_shared and store.experiment in added:
                if store.experiment not in fresh:
                    with store.errors_reported(AT_MOST):
                        fresh[store.experiment] = type(index)(store)
                index = fresh[store.experiment]
                with store.errors_reported(AT_MOST):
                    index.look(result.digests)
            for double in index.doubles(result.digests):
                with store.lock(), store.errors_reported():
                    if settled.trash(store, double, result.digests):
                        what = f"row {double.name!r} was there twice; one is in MLflow's trash"
                        self._note(what, _commit(result))

    def _take(self, result: Result, store: Store, written: Written) -> None:
        self.written.append((store, written))
        for note in written.notes:
            self._note(note, _commit(result))
        if self._bar is not None:
            self._bar.update()

    def _note(self, text: str, commit: str) -> None:
        if commit not in self.notes[text]:
            self.notes[text].append(commit)


def _check(chosen: Sequence[str], pipelines: Sequence[Pipeline]) -> None:
    """Raise `ToolError` if no pipeline has a stage with a chosen name."""
    stages = (stage for pipeline in pipelines for stage in pipeline.stages.values())
    known = {name for stage in stages for name in (stage.name, stage.group)}
    for name in chosen:
        if name not in known:
            raise ToolError(f"--stages: no stage is named {name!r}; known are {sorted(known)}")


def _is_behind(result: Result, has: Known) -> bool:
    """Whether a run with a result lacks what is declared of it, or the commit that it is in."""
    return bool(unshown(result, has)) or lags(result, has)


def _declares_models(pipeline: Pipeline, result: Result) -> bool:
    """Whether a pipeline itself declares all models of a result, and in the same way."""
    own = [model for stage in pipeline.stages.values() for model, _ in pipeline.models_of(stage)]
    return all(model in own for _, model, _ in result.models())


def _commit(result: Result) -> str:
    return result.origin.kept.commit if result.origin.kept else ""
