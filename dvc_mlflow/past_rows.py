"""Rows of all results that git's history has: each distinct one once, the oldest first."""

import argparse
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from tqdm import tqdm

from . import history, identity, state
from .content import fetch
from .errors import ProjectError, say, warn
from .history import Commits, Snapshot
from .identity import Row
from .placing import Index
from .project import Past, Project
from .rows import AT_MOST, n_declared, write
from .state import State
from .store import Store

_Result = frozenset[tuple[str, str]]
"""The digests of a row's results, by their names in the row."""


def record_past(
    project: Project, root: Path, chosen: Sequence[str], given: argparse.Namespace
) -> int:
    """Record the results of many commits; return the exit status."""
    with Past(project) as past:
        importer = _Importer(project, past, root, given)
        importer.record(chosen or _recorded_now(project), _commits(project.top, given))
    importer.report()
    return 0


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


class _Importer:
    """Finds the results that the store lacks, and records them."""

    def __init__(self, project: Project, past: Past, root: Path, given: argparse.Namespace) -> None:
        self._project, self._past, self._root, self._given = project, past, root, given
        self._stores: dict[str, tuple[Store, Index]] = {}
        self._done: dict[str, Counter[str]] = defaultdict(Counter)
        self._notes: dict[str, list[str]] = defaultdict(list)

    def record(self, chosen: Sequence[str], commits: Commits) -> None:
        """Record the results that these commits have, and no row."""
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
        with tqdm(total=sum(len(lacking) for _, lacking in new), unit="row", disable=None) as bar:
            for snapshot, lacking in new:
                for found, row, result in self._rows(snapshot, chosen):
                    if result in lacking:
                        origin = found.origin._replace(names=[*dict.fromkeys(names[result])])
                        self._write(replace(found, origin=origin), row)
                        bar.update()

    def report(self) -> None:
        """Say what was done, and what could not be."""
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
            say("nothing to do: MLflow has all results that can be read")

    def _rows(
        self, snapshot: Snapshot, chosen: Sequence[str]
    ) -> Iterator[tuple[State, Row, _Result]]:
        """Yield the rows that a commit has results for; note why it cannot be read."""
        try:
            pipeline = self._past.at(snapshot.commit, snapshot.definitions, snapshot.locks)
        except ProjectError as error:
            # The same text for all commits with this fault.
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
        store, index = self._store(row)
        notes = []
        if self._given.fetch:
            notes = fetch(found.project, found.pipeline, row, [*found.wanted(row)])
        with store.lock(), store.errors_reported(AT_MOST):
            dry, undelete = self._given.dry_run, self._given.deleted
            written = write(store, found, row, dry=dry, undelete=undelete, index=index)
            if written.known:
                index.update(found.origin.time, written.known)
                store.show(written.columns)
        if written.verb:
            self._done[store.experiment][written.verb] += 1
        for note in (*notes, *written.notes):
            self._notes[note].append(found.origin.kept)
