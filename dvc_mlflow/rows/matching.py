"""Where results go: the run of the store that has them, or that they join."""

import hashlib
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from ..store.store import Store  # before MLflow, which it sets up

# isort: split
from mlflow.entities import Run, ViewType

from .. import processes
from ..pipeline.identity import Known, Match, apart, match
from ..pipeline.lineages import as_key
from ..pipeline.tags import (
    BEGUN,
    CHANGE,
    CLONE,
    COMPLETE,
    REPRODUCED,
    SHOWN,
    SWEEP_VARIABLE,
    known_keys,
    tagged,
    value,
)
from ..store import database
from ..store.faults import retried
from .result import Result

_SEARCHES, _FEW = 5, 300  # so many searches take as long as to read so many runs


class Index:
    """All runs of a store by their results: for many results, cheaper than a search for each."""

    def __init__(self, store: Store, runs: Iterable[Run] | None = None) -> None:
        self._store = store
        self._runs: dict[tuple[str, str], dict[str, tuple[int, Known]]] = defaultdict(dict)
        self._changes = database.changes(store.address)
        self._knew_all = False
        for run in store.runs(view=ViewType.ALL) if runs is None else runs:
            self._add(run.info.start_time or 0, _known(run, store))

    def begin(self) -> None:
        """Begin to write, under the lock of the store."""

    def look(self, wanted: Mapping[str, str]) -> Match:
        """Return where results would go; somebody else can have written since."""
        return self.known(wanted)

    def digest(self) -> str:
        """Return a digest of what the runs hold."""
        runs = sorted({repr(run) for runs in self._runs.values() for run in runs.values()})
        return hashlib.md5("\n".join(runs).encode(), usedforsecurity=False).hexdigest()

    def known(self, wanted: Mapping[str, str]) -> Match:
        """Return where results went when the runs were read."""
        return match(wanted, self._oldest_first(wanted.items()))

    def _oldest_first(self, pairs: Iterable[tuple[str, str]]) -> list[Known]:
        """Return the runs that were read and have any of these results."""
        runs: dict[str, tuple[int, Known]] = {}
        for pair in pairs:
            runs |= self._runs.get(pair, {})
        oldest = sorted(runs.values(), key=lambda run: (run[0], run[1].run_id))
        return [known for _, known in oldest]

    def doubles(self, wanted: Mapping[str, str]) -> list[Known]:
        """Return the runs for the same results as an older one that has them, as far as read.

        A server can carry out what a killed import has asked for after another has made the row.
        """
        there = [run for run in self._oldest_first(wanted.items()) if not run.is_deleted]
        whole = [run for run in there if run.complete == wanted]
        begun = [run for run in there if run.begun == wanted != run.complete]
        return [run for run in whole[1:] + (begun if whole else []) if not run.is_open]

    def names(self, wanted: Mapping[str, str]) -> set[str]:
        """Return the names of the runs that have any of these results, as far as they were read."""
        return {known.name for known in self._oldest_first(wanted.items())}

    def find(self, wanted: Mapping[str, str]) -> Match:
        """Return where results go; the lock of the store must be held."""
        there = self.known(wanted)
        self._knew_all = self.is_current()
        # At a server a search costs as much as to write a row's metrics, so what another clone
        # writes at the same time is left to `Recording`, which leaves one of two rows.
        if there.has is not None or self._knew_all or self._store.is_remote:
            return there
        # Somebody else has written to the store. A run with all these results has the first one.
        name, digest = next(iter(wanted.items()))
        for run in _begun(self._store, name, digest):
            self._add(run.info.start_time or 0, _known(run, self._store))
        return self.known(wanted)

    def apart(self, result: Result) -> Result:
        """Return a result that no run has whole, without what other runs have to themselves."""
        pairs = []
        for name, digest in result.digests.items():
            stage = result.lineage.members[name]
            for key in {name, as_key(stage.group), as_key(stage.label)}:
                self.look({key: digest})
                pairs.append((key, digest))
        return replace(result, digests=apart(result.digests, self._oldest_first(pairs)))

    def is_current(self) -> bool:
        """Whether it is certain that nobody else has written to the store."""
        return database.changes(self._store.address) == self._changes is not None

    def update(self, start: int, known: Known) -> None:
        """Add a run that has been written, and when it started."""
        self._add(start, known)
        if self._knew_all:  # else others' runs would never be searched for
            self._changes = database.changes(self._store.address)

    def _add(self, start: int, known: Known) -> None:
        for pair in known.begun.items():
            self._runs[pair][known.run_id] = start, known


class Searches(Index):
    """The runs that were searched for, one search for each result while nobody else writes.

    After some searches it reads all runs at once, if they are few: then it needs no more.

    What is written between `begin` and `end`, under the lock of the store, is by this process.
    """

    def __init__(self, store: Store) -> None:
        super().__init__(store, ())
        self._changes = None
        self._asked: set[tuple[str, str]] = set()
        self._experiments: list[str] = []
        self._read: dict[str, Run] = {}
        self._has_all = False
        self.is_alone = False
        """Whether nobody else had written between the last `end` and `begin`."""

    def begin(self) -> None:
        """Forget everything if somebody else has written."""
        self.is_alone = self.is_current()
        if not self.is_alone:
            self.clear()

    def clear(self) -> None:
        """Forget everything."""
        self._runs.clear()
        self._read.clear()
        self._asked.clear()
        self._has_all = False
        self._experiments = self._store.experiments()

    def end(self) -> None:
        """Take note that all changes are by this process."""
        self._changes = database.changes(self._store.address)

    def look(self, wanted: Mapping[str, str]) -> Match:
        """Return where results would go; somebody else can have written since."""
        return self.find(wanted)

    def find(self, wanted: Mapping[str, str]) -> Match:
        """Return where results go."""
        for pair in wanted.items() - self._asked:
            there = self.known(wanted)
            if there.has is not None and not there.has.is_deleted:
                break  # a search for any of the results finds all runs that have all of them
            if len(self._asked) == _SEARCHES and not self._has_all:
                self._read_few()
            if not self._has_all or self._is_open(pair):
                self._keep(_begun(self._store, *pair, self._experiments))
            if not self._is_open(pair):  # else it can end without a change in the store
                self._asked.add(pair)
        return self.known(wanted)

    def _read_few(self) -> None:
        """Read all runs if they are few, and some otherwise."""
        if own := self._experiments or self._store.experiments():  # `begin` need not have run
            found = self._store.client.search_runs(own, "", ViewType.ALL, _FEW)
            self._has_all = not found.token
            self._keep(found)

    def _keep(self, runs: Iterable[Run]) -> None:
        for run in runs:
            self._read[run.info.run_id] = run
            self._add(run.info.start_time or 0, _known(run, self._store))

    def _is_open(self, pair: tuple[str, str]) -> bool:
        """Whether a process is at work on a run for this result."""
        return any(known.is_open for _, known in self._runs.get(pair, {}).values())

    def count(self, run_id: str) -> None:
        """Count once more how often the results of a run were made again."""
        run = self._read[run_id] = self._read.get(run_id) or self._store.client.get_run(run_id)
        count = run.data.tags.get(REPRODUCED, "")
        new = run.data.tags[REPRODUCED] = str(int(count) + 1 if count.isdecimal() else 1)
        retried(lambda: self._store.client.set_tag(run_id, REPRODUCED, new))


def _begun(store: Store, name: str, digest: str, experiments: Sequence[str] = ()) -> Iterator[Run]:
    """Yield the runs that are for a result of this stage with this digest, deleted ones, too."""
    for key in known_keys(BEGUN):
        yield from store.runs(f"tags.`{key}{name}` = '{digest}'", ViewType.ALL, experiments)


def _known(run: Run, store: Store) -> Known:
    tags = run.data.tags
    begun, complete = tagged(tags, BEGUN), tagged(tags, COMPLETE)
    deleted = run.info.lifecycle_stage == "deleted"
    at_work = run.info.status == "RUNNING" and not processes.has_ended(tags)
    if os.environ.get(SWEEP_VARIABLE):  # another node may be at work on it: locks are per clone
        at_work |= value(tags, CLONE) != processes.clone(store.root)
    shown = {name: frozenset(own.split()) for name, own in tagged(tags, SHOWN).items()}
    name, change = run.info.run_name or "", tags.get(CHANGE, "")
    foreign = bool(store.why_no_files(run))
    return Known(run.info.run_id, begun, complete, deleted, at_work, shown, name, change, foreign)
