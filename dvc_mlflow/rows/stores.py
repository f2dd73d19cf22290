"""The stores that rows go to: each MLflow experiment is opened once in a process."""

from collections.abc import Iterator
from pathlib import Path
from typing import Generic, TypeVar

from ..store.store import Store  # before MLflow, which it sets up

# isort: split
from ..pipeline.identity import Match
from ..pipeline.lineages import Lineage
from .matching import Index
from .result import Result, columns, experiment

AT_MOST = 600
"""Seconds that a server may take for a row; a model can have a few GB."""

_Index = TypeVar("_Index", bound=Index)


class Stores(Generic[_Index]):
    """The experiments of a project's rows, and what is known of the runs in each.

    `root` is the main repository, and `folder` the project in it. Without `create`, nothing is
    written.
    """

    def __init__(
        self, root: Path, folder: str, index: type[_Index], *, create: bool = True
    ) -> None:
        self._root, self._folder, self._create, self._index = root, folder, create, index
        self._opened: dict[str, Store] = {}
        self._indices: dict[str, _Index] = {}

    def __iter__(self) -> Iterator[Store]:
        """Yield the stores that were opened."""
        yield from self._opened.values()

    def __contains__(self, lineage: Lineage) -> bool:
        """Whether the store of a lineage was opened."""
        return experiment(lineage) in self._opened

    def named(self, name: str, shown: list[str] | None = None) -> Store:
        """Return an experiment's store, by its name in dvc.yaml; raises `StoreError`."""
        if name not in self._opened:
            folder, create = self._folder, self._create
            self._opened[name] = Store(self._root, name, shown or (), folder=folder, create=create)
        return self._opened[name]

    def of(self, lineage: Lineage) -> Store:
        """Return the store of a lineage's rows; raises `StoreError`."""
        return self.named(experiment(lineage), columns(lineage))

    def index(self, lineage: Lineage) -> _Index:
        """Return what is known of the runs where a lineage's rows are; raises `StoreError`."""
        name, store = experiment(lineage), self.of(lineage)
        if name not in self._indices:
            with store.errors_reported(AT_MOST):
                self._indices[name] = self._index(store)
        return self._indices[name]

    def look(self, result: Result) -> Match:
        """Return where a result would go, by its lineage's index; raises `StoreError`."""
        with self.of(result.lineage).errors_reported(AT_MOST):
            return self.index(result.lineage).look(result.digests)

    def apart(self, result: Result) -> Result:
        """Return a result, without what other runs have to themselves if no run has it whole.

        Raises `StoreError`.
        """
        if self.look(result).has is not None:
            return result
        with self.of(result.lineage).errors_reported(AT_MOST):
            return self.index(result.lineage).apart(result)

    def names(self) -> list[str]:
        """Return the names in dvc.yaml of the experiments that were opened, "" for the default."""
        return [*self._opened]
