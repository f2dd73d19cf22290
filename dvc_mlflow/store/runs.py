"""The runs of an experiment by the results that they hold: where a result goes."""

from collections import defaultdict
from collections.abc import Iterable, Mapping

from mlflow.entities import Run, ViewType
from mlflow.utils import name_utils

from .. import processes
from ..pipeline.row import NOWHERE, Standing
from ..pipeline.stored_run import Match, StoredRun, apart, match
from ..pipeline.tags import (
    BEGUN,
    COMPLETE,
    DOUBLE,
    KEPT,
    PREFIX,
    SHOWN,
    UNREAD,
    WHOLE,
    known_keys,
    tagged,
    value,
)
from .store import Store

_Found = dict[str, tuple[int, StoredRun]]
"""Runs by their ids, each after its start."""


class Runs:
    """The runs of a store; each is found by a search for one of its results.

    What was found counts until `look_again` or `add`.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: dict[tuple[str, str], _Found] = {}
        self._experiments: list[str] = []
        """Where runs can be; empty until it is known."""

    def find(self, wanted: Mapping[str, str]) -> Match:
        """Return where results go."""
        found: _Found = {}
        for name, digest in wanted.items():
            found |= self._having(name, digest)
            if (there := match(wanted, _oldest_first(found))).has is not None:
                return there  # a search for any of the results finds all runs that have all of them
        return match(wanted, _oldest_first(found))

    def apart(self, wanted: Mapping[str, str], keys: Mapping[str, Iterable[str]]) -> dict[str, str]:
        """Return those results that no run has to itself, if no run has them all.

        `keys` are all names that each stage can have in a row.
        """
        if self.find(wanted).has is not None:
            return dict(wanted)
        found: _Found = {}
        for name, digest in wanted.items():
            for key in {name, *keys.get(name, ())}:
                found |= self._having(key, digest)
        return apart(wanted, _oldest_first(found))

    def doubles(self, wanted: Mapping[str, str]) -> list[StoredRun]:
        """Return the runs for the same results as an older one that has them.

        A server can carry out what a killed import has asked for after another has made the row.
        """
        (name, digest), *_ = wanted.items()
        there = [r for r in _oldest_first(self._having(name, digest)) if not r.is_deleted]
        whole = [run for run in there if run.complete == wanted]
        begun = [run for run in there if run.begun == wanted and run.complete != wanted]
        return [run for run in whole[1:] + (begun if whole else []) if not run.is_open]

    def look_again(self, wanted: Mapping[str, str]) -> None:
        """Search again for the runs with these results, as somebody can have made them."""
        self._known, self._experiments = {}, []

    def add(self, run: StoredRun, start: int) -> None:
        """Take note of a run that has been written, and of its start."""
        self._known = {}

    def _having(self, name: str, digest: str) -> _Found:
        """Return the runs that are for a stage's result with this digest, deleted ones, too."""
        if (name, digest) not in self._known:
            self._experiments = self._experiments or self._store.experiments()
            self._known[name, digest] = {
                run.info.run_id: (run.info.start_time or 0, stored_run(run, self._store))
                for key in known_keys(BEGUN)
                for run in self._store.runs(
                    f"tags.`{key}{name}` = '{digest}'", ViewType.ALL, self._experiments
                )
            }
        return self._known[name, digest]


class AllRuns(Runs):
    """All runs of a store, read at once: for many results, cheaper than a search for each."""

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self._experiments = store.experiments()
        self._runs: dict[tuple[str, str], _Found] = defaultdict(dict)
        for run in store.runs(view=ViewType.ALL, experiments=self._experiments):
            self.add(stored_run(run, store), run.info.start_time or 0)

    def look_again(self, wanted: Mapping[str, str]) -> None:
        """Read the runs with the first of these results again, as somebody can have made them."""
        (name, digest), *_ = wanted.items()
        query = f"tags.`{BEGUN}{name}` = '{digest}'"  # nobody makes rows of 2.0.0 now
        for run in self._store.runs(query, ViewType.ALL, self._experiments):
            self.add(stored_run(run, self._store), run.info.start_time or 0)

    def add(self, run: StoredRun, start: int) -> None:
        """Take note of a run that has been written, and of its start."""
        for pair in run.begun.items():
            self._runs[pair][run.run_id] = start, run

    def _having(self, name: str, digest: str) -> _Found:
        return self._runs.get((name, digest), {})


def _oldest_first(found: _Found) -> list[StoredRun]:
    oldest = sorted(found.values(), key=lambda each: (each[0], each[1].run_id))
    return [run for _, run in oldest]


def stored_run(run: Run, store: Store) -> StoredRun:
    """Return what a run says of itself."""
    tags = run.data.tags
    complete, shown = tagged(tags, COMPLETE), tagged(tags, SHOWN)
    # What this process has left RUNNING, it has failed to complete.
    at_work = run.info.status == "RUNNING" and not (
        processes.has_ended(tags) or processes.is_own(tags)
    )
    row, given = whole(value(tags, WHOLE)), tagged(tags, PREFIX)
    # A row of 2.0.0 says nothing of its prefixes: they are today's.
    known = complete.keys() if row else shown.keys()
    declared = row[2] if row else frozenset[str]().union(*(s.split() for s in shown.values()))
    return StoredRun(
        run_id=run.info.run_id,
        begun=tagged(tags, BEGUN),
        complete=complete,
        is_deleted=run.info.lifecycle_stage == "deleted",
        is_double=bool(value(tags, DOUBLE)),
        is_open=at_work,
        is_foreign=bool(store.why_no_files(run)),
        name=run.info.run_name or "",
        format=row[0] if row else 0,
        standing=row[1] if row else NOWHERE,
        declared=declared,
        unread=value(tags, UNREAD),
        prefixes={name: given.get(name) for name in known},
        kept=tagged(tags, KEPT),
    )


def whole(text: str) -> tuple[int, Standing, frozenset[str]] | None:
    """Return what the tag `WHOLE` says: format, standing and declarations; None if nothing."""
    words = text.split(" ")
    try:
        at = Standing(int(words[1]), int(words[2]), words[3])
        return int(words[0]), at, frozenset(filter(None, words[4:]))
    except (IndexError, ValueError):
        return None


def whole_text(format_: int, at: Standing, declared: frozenset[str]) -> str:
    """Return the text of the tag `WHOLE`."""
    return " ".join([f"{format_} {at.rank} {at.time} {at.commit}", *sorted(declared)])


def is_random_name(name: str) -> bool:
    """Whether MLflow has made up the name of a run."""
    first, _, rest = name.partition("-")
    second, _, number = rest.partition("-")
    known = first in name_utils._GENERATOR_PREDICATES and second in name_utils._GENERATOR_NOUNS
    return known and number.isdecimal()
