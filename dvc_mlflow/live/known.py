"""The stores of one `dvc` process, which all its stages share."""

from collections.abc import Iterator
from contextlib import contextmanager

from ..store.store import Store  # before MLflow, which it sets up

# isort: split
from ..errors import StoreError
from ..place import main_repository
from ..rows.result import Result, columns, experiment
from ..store.faults import AWAY
from ..store.runs import Runs
from ..store.stores import AT_MOST, Stores


class Known:
    """The stores that stages need, each opened once.

    A store that cannot be opened is not used again, and none is once the server does not answer: a
    time-out costs its seconds once, not in every stage.
    """

    def __init__(self) -> None:
        self._stores: dict[str, Stores] = {}
        self._errors: dict[tuple[str, str], StoreError] = {}
        self._away: StoreError | None = None

    @contextmanager
    def use(self, result: Result) -> Iterator[tuple[Store, Runs]]:
        """Yield the store of a result, locked in the block, and its runs; raises `StoreError`."""
        folder, lineage = result.project.folder, result.lineage
        key = experiment(lineage), folder
        if error := self._away or self._errors.get(key):
            raise error
        if folder not in self._stores:
            self._stores[folder] = Stores(main_repository(), folder)
        stores = self._stores[folder]
        try:
            store, runs = stores.of(key[0], columns(lineage)), stores.runs(key[0])
            with store.lock(), store.errors_reported(AT_MOST):
                yield store, runs
        except StoreError as error:
            if error.cure == AWAY:
                self._away = error
            elif key[0] not in stores:
                self._errors[key] = error
            raise
