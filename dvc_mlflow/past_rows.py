"""Record all results in git's history: each distinct one once, the oldest first."""

import argparse
import hashlib
import json
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from . import database, history, identity, state
from .content import fetch
from .draft import Draft, read
from .errors import ProjectError, say, warn
from .history import Commits, Snapshot
from .identity import Row
from .placing import Index
from .project import Past, Project
from .repository import address, ask
from .rows import AT_MOST, Written, has_models, n_declared, write
from .state import State
from .store import Store

_Result = frozenset[tuple[str, str]]
"""The digests of a row's results, by their names in the row."""

_NOTHING = "nothing to do: MLflow has all results that can be read"
_UNKNOWN = ""
_AT_ONCE = 16
"""How many rows are sent to a server at the same time, as each request to it takes long."""


def record_past(
    project: Project, root: Path, chosen: Sequence[str], given: argparse.Namespace
) -> int:
    """Record the results of many commits; return the exit status."""
    chosen = chosen or _recorded_now(project)
    complete = root / ".dvc" / "tmp" / "dvc-mlflow-complete"  # when MLflow last had all results
    asked = _asked(project, root, chosen, given)
    if complete.exists() and complete.read_text() == _condition(asked, root) != _UNKNOWN:
        say(_NOTHING)
        return 0
    with Past(project) as past:
        importer = _Importer(project, past, root, given)
        importer.record(chosen, _commits(project.top, given))
    if importer.report() and complete.parent.is_dir() and not given.dry_run:
        complete.write_text(_condition(asked, root))
    return 0


def _asked(project: Project, root: Path, chosen: Sequence[str], given: argparse.Namespace) -> str:
    """Return all that decides which results MLflow should have."""
    top = str(project.top)
    refs = ask("-C", top, "for-each-ref"), ask("-C", top, "rev-parse", "-q", "--verify", "HEAD")
    where = address(root), os.environ.get("MLFLOW_EXPERIMENT_NAME"), project.folder
    return json.dumps([version("dvc-mlflow"), refs, where, chosen, vars(given)], default=str)


def _condition(asked: str, root: Path) -> str:
    """Return a digest of what `_asked` returns and of the store's state, if that is known."""
    if (count := database.changes(address(root))) is None:
        return _UNKNOWN
    return hashlib.md5(f"{asked} {count}".encode(), usedforsecurity=False).hexdigest()


def _commits(top: Path, given: argparse.Namespace) -> Commits:
    if given.experiments:
        return history.experiments(top)
    return history.everything(top) if given.all else history.between(top, given.rev)


def _recorded_now(project: Project) -> list[str]:
    """Return the names of the stages that are recorded today: earlier commits had no prefix."""
    try:
        return [*dict.fromkeys(stage.group for stage in identity.recorded(project.pipeline()))]
    except ProjectError:
        return []


class _Lacking(NamedTuple):
    """A row that the store lacks."""

    store: Store
    known: Index
    state: State
    row: Row
    draft: Draft | None


class _Importer:
    """Finds the results that the store lacks, and records them."""

    def __init__(self, project: Project, past: Past, root: Path, given: argparse.Namespace) -> None:
        self._project, self._past, self._root, self._given = project, past, root, given
        self._stores: dict[str, tuple[Store, Index]] = {}
        self._done: dict[str, Counter[str]] = defaultdict(Counter)
        self._notes: dict[str, list[str]] = defaultdict(list)
        self._pending: list[_Lacking] = []
        self._bar: tqdm[None]

    def record(self, chosen: Sequence[str], commits: Commits) -> None:
        """Record the results of these commits that have no row."""
        names: dict[_Result, list[str]] = defaultdict(list)
        new: list[tuple[Snapshot, set[_Result]]] = []
        project = self._project
        for snapshot in history.snapshots(project.top, project.folder, project.blobs, commits):
            lacking = set()
            for found, row, result in self._rows(snapshot, chosen):
                if result not in names and self._lacks(found, row):
                    lacking.add(result)
                names[result] += snapshot.names
            if lacking:
                new.append((snapshot, lacking))
        total = sum(len(lacking) for _, lacking in new)
        with tqdm(total=total, unit="row", disable=None) as self._bar:
            for snapshot, lacking in new:
                for found, row, result in self._rows(snapshot, chosen):
                    if result in lacking:
                        origin = found.origin._replace(names=[*dict.fromkeys(names[result])])
                        self._write(replace(found, origin=origin), row)
            self._send()

    def report(self) -> bool:
        """Say what was done, and what could not be; return whether MLflow has all results now."""
        for text, commits in self._notes.items():
            others = f" and {len(commits) - 1} more" if len(commits) > 1 else ""
            warn(f"{commits[0][:7]}{others}: {text}")
        would = "would be " if self._given.dry_run else ""
        for name, counts in self._done.items():
            for verb, n in counts.items():
                say(f"{name}: {n} row{'s' if n > 1 else ''} {would}{verb}")
        for store, _ in self._stores.values():
            if store.experiment in self._done and not self._given.dry_run:
                say(f"all rows: {store.url()}")
        if not self._done and not self._notes:
            say(_NOTHING)
        if self._notes or (self._done and self._given.dry_run):
            return False
        return all(index.is_current() for _, index in self._stores.values())

    def _rows(
        self, snapshot: Snapshot, chosen: Sequence[str]
    ) -> Iterator[tuple[State, Row, _Result]]:
        """Yield the rows that a commit has results for; note why it cannot be read."""
        try:
            pipeline = self._past.at(snapshot.commit, snapshot.definitions, snapshot.locks)
        except ProjectError as error:
            # The same text for all commits with this error.
            why = re.sub(r" in revision '\w+'|; `dvc status` says more", "", f"{error}")
            if snapshot.commit not in self._notes[why]:
                self._notes[why].append(snapshot.commit)
            return
        known = {name for stage in pipeline.stages.values() for name in (stage.name, stage.group)}
        own = [name for name in chosen if name in known]
        found = state.of(self._project, pipeline, snapshot.origin, own)
        for row in found.rows():
            yield found, row, frozenset(found.wanted(row).items())

    def _store(self, row: Row) -> tuple[Store, Index]:
        name = state.experiment(row)
        if name not in self._stores:
            columns, folder = state.columns(row), self._project.folder
            create = not self._given.dry_run
            store = Store(self._root, name, columns, folder=folder, create=create)
            with store.errors_reported(AT_MOST):
                self._stores[name] = store, Index(store)
        return self._stores[name]

    def _lacks(self, found: State, row: Row) -> bool:
        _, index = self._store(row)
        there = index.known(found.wanted(row)).has
        if there is None or there.is_deleted:
            return there is None or self._given.deleted
        return there.n_models < n_declared(found, row)

    def _write(self, found: State, row: Row) -> None:
        """Read what a row is to get, and send it with others that have no result in common."""
        store, index = self._store(row)
        wanted = found.wanted(row)
        if self._given.fetch:
            for note in fetch(found.project, found.pipeline, row, [*wanted]):
                self._notes[note].append(found.origin.kept)
        # These read the project while they write: write them now, while it is at this commit.
        alone = self._given.dry_run or self._given.deleted or has_models(found, row)
        together = all(
            each.store is store and not each.state.wanted(each.row).items() & wanted.items()
            for each in self._pending
        )
        if alone or not together:
            self._send()
        draft = None if alone else read(found, row, [*wanted], self._root)
        self._pending.append(_Lacking(store, index, found, row, draft))
        if alone or len(self._pending) == _AT_ONCE:
            self._send()

    def _send(self) -> None:
        if not self._pending:
            return
        pending, self._pending = self._pending, []
        store = pending[0].store
        with ThreadPoolExecutor(_AT_ONCE) as pool, store.lock(), store.errors_reported(AT_MOST):
            send = pool.map if store.is_remote else map  # a database has one writer at a time
            for each, written in zip(pending, send(self._write_one, pending), strict=True):
                if written.known:
                    store.show(written.columns)
                    each.known.update(each.state.origin.time, written.known)
                if written.verb:
                    self._done[store.experiment][written.verb] += 1
                for note in written.notes:
                    self._notes[note].append(each.state.origin.kept)
                self._bar.update()

    def _write_one(self, lacking: _Lacking) -> Written:
        store, index, found, row, draft = lacking
        dry, undelete = self._given.dry_run, self._given.deleted
        return write(store, found, row, dry=dry, undelete=undelete, index=index, given=draft)
