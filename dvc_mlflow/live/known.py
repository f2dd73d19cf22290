"""The stores of one `dvc` process, which all its stages share."""

from collections.abc import Iterator
from contextlib import contextmanager

from ..store.store import Store  # before MLflow, which it sets up

# isort: split
from ..errors import StoreError
from ..place import main_repository
from ..rows.matching import Searches
from ..rows.result import Result, experiment
from ..rows.stores import AT_MOST, Stores
from ..store.faults import AWAY


class Known:
    """The stores that stages need, each opened once.

    A store that cannot be opened is not used again, and none is once the server does not answer: a
    time-out costs its seconds once, not in every stage.
    """

    def __init__(self) -> None:
        self._stores: dict[str, Stores[Searches]] = {}
        self._errors: dict[tuple[str, str], StoreError] = {}
        self._away: StoreError | None = None
        self.disturbed = 0
        """How often somebody else was found to have written to a store."""

    @contextmanager
    def use(self, result: Result) -> Iterator[tuple[Store, Searches]]:
        """Yield the store of a result, locked in the block, and its runs; raises `StoreError`."""
        folder, lineage = result.project.folder, result.lineage
        key = experiment(lineage), folder
        if error := self._away or self._errors.get(key):
            raise error
        if folder not in self._stores:
            self._stores[folder] = Stores(main_repository(), folder, Searches)
        stores = self._stores[folder]
        try:
            store, searches = stores.of(lineage), stores.index(lineage)
            with store.lock(), store.errors_reported(AT_MOST):
                searches.begin()
                self.disturbed += not searches.is_alone
                yield store, searches
                searches.end()
        except StoreError as error:
            if error.cure == AWAY:
                self._away = error
            elif lineage not in stores:
                self._errors[key] = error
            raise
