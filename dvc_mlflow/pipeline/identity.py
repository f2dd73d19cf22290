"""By which digests results are known, and where they go in a store.

Both are a function of dvc.yaml and dvc.lock, never of the order in which stages ran. Recording
after the fact and while a stage runs use the same functions.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from .row import FORMAT, NOWHERE, Standing, Wanted
from .stages import Pipeline, Stage


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


def results(pipeline: Pipeline) -> tuple[dict[str, str], dict[str, str]]:
    """Return the digest of each stage's result, and why the other stages have none.

    A stage has none if dvc.lock has no entry for it, if what it has read is not what the stages
    upstream have written since, or if one of those has none.
    """
    found, digests = locked(pipeline), dict[str, str]()
    reasons: dict[str, str] = {}
    for stage in pipeline.stages.values():
        outdated = () if stage.frozen else [dep for dep in stage.deps if dep.outdated]
        lacking = [name for name in pipeline.makers(stage) if name not in digests and stage.command]
        if not stage.has_result:
            reasons[stage.name] = "dvc.lock has no result of it"
        elif lacking:
            reasons[stage.name] = f"stage {lacking[0]}, upstream of it, must run first"
        elif outdated:
            by = f"{' and '.join(outdated[0].makers)} has written"
            reasons[stage.name] = f"it has read a different {outdated[0].path} than {by}"
        else:
            digests[stage.name] = found[stage.name]
    return digests, reasons


def locked(pipeline: Pipeline) -> dict[str, str]:
    """Return the digest of each stage that dvc.lock has, and all that are upstream of it.

    Unlike `results`, it includes those that have read something else than the stages upstream have
    written since. Recording and restoring both know a result by this digest.
    """
    digests: dict[str, str] = {}
    for stage in pipeline.stages.values():
        # What no stage makes lies beside the last stages, and does not come from them.
        makers = pipeline.makers(stage) if stage.command else ()
        if stage.has_result and all(name in digests for name in makers):
            above = sorted(digests[name] for name in makers)
            digests[stage.name] = _digest(pipeline.folder, stage, above)
    return digests


def _digest(folder: str, stage: Stage, above: Sequence[str]) -> str:
    """Return the identity of a result: its params and outputs, and those of all stages upstream.

    Neither code nor the command counts: if they make the same bytes, it is the same result.
    """
    text = f"[{json.dumps(folder)}, {stage.content}, {json.dumps(above)}]"
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


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
