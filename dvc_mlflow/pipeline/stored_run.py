"""A run in the store, by the results that it has, and which run a new result goes to."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from .row import FORMAT, NOWHERE, Standing, Wanted


@dataclass(frozen=True)
class StoredRun:
    """A run in the store, by the results that it holds."""

    run_id: str
    begun: Mapping[str, str]
    """Digests by stage: what the run is for."""
    complete: Mapping[str, str]
    """Digests by stage: what it has."""
    is_deleted: bool = False
    is_double: bool = False
    """Whether it is deleted as another run has the same results: it is nobody's to restore."""
    is_open: bool = False
    """Whether a process is at work on it."""
    is_foreign: bool = False
    """Whether its files are elsewhere than its experiment's: nothing is added to it."""
    name: str = ""
    format: int = 0
    """The format of the row; 0 if nothing says that it has all."""
    standing: Standing = NOWHERE
    declared: frozenset[str] = frozenset()
    """What it has of what dvc.yaml declares, as short digests."""
    unread: str = ""
    """Which files could not be read."""
    prefixes: Mapping[str, str | None] = field(default_factory=dict)
    """The prefixes that its metrics have, by stage; None is the stage's name."""
    kept: Mapping[str, str] = field(default_factory=dict)
    """The commits that keep its files, by stage."""

    def lacks(self, wanted: Wanted) -> bool:
        """Whether a row lacks something that is known before it is read."""
        return self.lacks_content(wanted) or wanted.standing.is_better(self.standing)

    def lacks_content(self, wanted: Wanted) -> bool:
        """Whether it lacks more than a better standing."""
        is_whole = self.format >= FORMAT and not self.unread
        return not (is_whole and wanted.declared <= self.declared)


class Match(NamedTuple):
    """Where results go: the run that has them, the one that they join, or neither: a new one."""

    has: StoredRun | None = None
    joins: StoredRun | None = None


def apart(wanted: Mapping[str, str], known: Iterable[StoredRun]) -> dict[str, str]:
    """Return those results of a row that no other run has to itself, given the runs in the store.

    A run of which all results are among these was made when dvc.yaml divided them in another way:
    it keeps them, unless it is the one that the rest joins.
    """
    results = {*wanted.values()}
    inside = [
        run
        for run in known
        if run.complete and not run.is_deleted and results.issuperset(run.complete.values())
    ]
    joins = match(wanted, inside).joins
    others = {digest for run in inside if run is not joins for digest in run.complete.values()}
    others -= {*joins.complete.values()} if joins else set()
    return {name: digest for name, digest in wanted.items() if digest not in others}


def match(wanted: Mapping[str, str], known: Iterable[StoredRun]) -> Match:
    """Return where the results of a row go, given the runs in the store, oldest first.

    A run has them if it has each with the same digest. They join a run only if all that it has or
    has begun is among them, so that no run ever mixes results that were in no dvc.lock together.
    """
    runs = [run for run in known if not (run.is_deleted and run.is_double)]
    has = [run for run in runs if wanted.items() <= run.complete.items()]
    has += [run for run in runs if run.is_deleted and wanted.items() <= run.begun.items()]
    if has:
        return Match(has=min(has, key=lambda run: run.is_deleted))
    free = [run for run in runs if not (run.is_deleted or run.is_open or run.is_foreign)]
    joins = [run for run in free if {**run.begun, **run.complete}.items() <= wanted.items()]
    return Match(joins=max(joins, key=lambda run: len(run.begun), default=None))
