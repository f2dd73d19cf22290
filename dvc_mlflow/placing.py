"""Where results go: the run of the store that has them, or that they join."""

import os
from collections import defaultdict
from collections.abc import Mapping

from .store import Store  # before MLflow, which it sets up

# isort: split
from mlflow.entities import Run, ViewType

from . import database, processes
from .identity import Known, Place, place
from .origin import SWEEP_VARIABLE
from .tags import BEGUN, COMPLETE, tagged


def find(store: Store, wanted: Mapping[str, str]) -> Place:
    """Return where results go, by their digests."""
    runs: dict[str, Run] = {}
    for name, digest in wanted.items():
        found = store.runs(f"tags.`{BEGUN}{name}` = '{digest}'", ViewType.ALL)
        runs |= {run.info.run_id: run for run in found}
    return place(wanted, [_known(run, store) for run in sorted(runs.values(), key=_age)])


class Index:
    """All runs of a store by their results: for many results, cheaper than a search for each."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._runs: dict[tuple[str, str], dict[str, tuple[int, Known]]] = defaultdict(dict)
        self._changes = database.changes(store.address)
        for run in store.runs(view=ViewType.ALL):
            self._add(run.info.start_time or 0, _known(run, store))

    def known(self, wanted: Mapping[str, str]) -> Place:
        """Return where results went when the runs were read."""
        runs: dict[str, tuple[int, Known]] = {}
        for pair in wanted.items():
            runs |= self._runs.get(pair, {})
        oldest = sorted(runs.values(), key=lambda run: (run[0], run[1].run_id))
        return place(wanted, [known for _, known in oldest])

    def find(self, wanted: Mapping[str, str]) -> Place:
        """Return where results go; the lock of the store must be held."""
        there = self.known(wanted)
        if there.has is not None or self.is_current():
            return there
        # Somebody else has written to the store. A run with all these results has the first one.
        name, digest = next(iter(wanted.items()))
        for run in self._store.runs(f"tags.`{BEGUN}{name}` = '{digest}'", ViewType.ALL):
            self._add(run.info.start_time or 0, _known(run, self._store))
        return self.known(wanted)

    def is_current(self) -> bool:
        """Whether it is certain that nobody else has written to the store."""
        return database.changes(self._store.address) == self._changes is not None

    def update(self, start: int, known: Known) -> None:
        """Add a run that has been written, and when it started."""
        self._add(start, known)
        self._changes = database.changes(self._store.address)

    def _add(self, start: int, known: Known) -> None:
        for pair in known.begun.items():
            self._runs[pair][known.run_id] = start, known


def _age(run: Run) -> tuple[int, str]:
    return run.info.start_time or 0, run.info.run_id


def _known(run: Run, store: Store) -> Known:
    tags = run.data.tags
    begun, complete = tagged(tags, BEGUN), tagged(tags, COMPLETE)
    deleted = run.info.lifecycle_stage == "deleted"
    at_work = run.info.status == "RUNNING" and not processes.has_ended(tags)
    if os.environ.get(SWEEP_VARIABLE):  # another node may be at work on it: locks are per clone
        at_work |= tags.get(processes.CLONE) != processes.clone(store.root)
    return Known(run.info.run_id, begun, complete, deleted, at_work, n_models(run))


def n_models(run: Run) -> int:
    """Return how many models a run has."""
    return len(run.outputs.model_outputs) if run.outputs else 0
