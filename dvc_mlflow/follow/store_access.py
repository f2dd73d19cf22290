"""The stores that a follower writes to: each opened once, and left alone while it fails."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import StoreError
from ..rows.result import Result, chosen_columns, experiment_of
from ..store.store import ExperimentStores, Store
from ..store.store_errors import AWAY

RETRY = 30.0  # s until a process that goes on asks a store again that has failed


class StoreAccess:
    """The stores that stages need, each opened once.

    A store that cannot be opened is left alone for `RETRY` seconds, and so are all while the server
    does not answer: its time-out is paid once, not in every stage.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._stores: dict[str, ExperimentStores] = {}
        self._errors: dict[tuple[str, str], StoreError] = {}
        self._away: StoreError | None = None
        self._since = 0.0

    @contextmanager
    def use(self, result: Result) -> Iterator[Store]:
        """Yield the store of a result, locked in the block; raises `StoreError`."""
        folder, row_stages = result.project.folder, result.row_stages
        key = experiment_of(row_stages), folder
        if time.monotonic() - self._since > RETRY:
            self._errors, self._away = {}, None
        if error := self._away or self._errors.get(key):
            raise error
        if folder not in self._stores:
            self._stores[folder] = ExperimentStores(self._root, folder)
        stores = self._stores[folder]
        try:
            store = stores.of(key[0], chosen_columns(row_stages))
            with store.lock(), store.errors_reported():
                yield store
        except StoreError as error:
            if error.cure == AWAY:
                self._away = error
            elif key[0] not in stores:
                self._errors[key] = error
            self._since = time.monotonic()
            raise
