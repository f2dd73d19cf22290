"""The stores that rows go to: each MLflow experiment is opened once in a process."""

from collections.abc import Iterator
from pathlib import Path

from .runs import AllRuns, Runs
from .store import Store

AT_MOST = 600
"""Seconds that a server may take for a row; a model can have a few GB."""


class ExperimentStores:
    """The experiments of a project's rows, by their names in dvc.yaml; "" is the default one.

    `root` is the main repository, and `folder` the project in it. Without `create`, nothing is
    written. With `reads_all`, all runs of an experiment are read at once. Methods raise
    `StoreError`.
    """

    def __init__(
        self, root: Path, folder: str, *, create: bool = True, reads_all: bool = False
    ) -> None:
        self._root, self._folder, self._create = root, folder, create
        self._kind = AllRuns if reads_all else Runs
        self._opened: dict[str, Store] = {}
        self._runs: dict[str, Runs] = {}

    def __iter__(self) -> Iterator[Store]:
        """Yield the stores that were opened."""
        yield from self._opened.values()

    def __contains__(self, name: str) -> bool:
        """Whether the store of an experiment was opened."""
        return name in self._opened

    def of(self, name: str, columns: list[str] | None = None) -> Store:
        """Return an experiment's store; `columns` are those that dvc.yaml chooses for its table."""
        if name not in self._opened:
            if self._create:
                found = Store.open(self._root, name, columns or (), folder=self._folder)
            else:
                found = Store.existing(self._root, name, folder=self._folder)
            self._opened[name] = found
        return self._opened[name]

    def runs(self, name: str) -> Runs:
        """Return the runs of an experiment."""
        if name not in self._runs:
            store = self.of(name)
            with store.errors_reported(AT_MOST):
                self._runs[name] = self._kind(store)
        return self._runs[name]
