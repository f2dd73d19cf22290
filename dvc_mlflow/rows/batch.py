"""Write results to their stores, several at a time where a server takes long for each request."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from ..store.store import Store  # before MLflow, which it sets up

# isort: split
from .gathered import Gathered, gather
from .matching import Index, Searches
from .result import Result
from .stores import AT_MOST, Stores
from .write import Written, write

_AT_ONCE = 16


class Options(NamedTuple):
    """How results are recorded."""

    dry_run: bool = False
    """Write nothing."""
    deleted: bool = False
    """Also restore rows from the trash."""
    fetch: bool = False
    """Fetch what a row shows from DVC's remote."""


class _Pending(NamedTuple):
    """A result that the store lacks."""

    store: Store
    known: Index
    result: Result
    gathered: Gathered | None


class Batch:
    """Results that have been read, and are written before one that needs the project to be there.

    `done` is called for each.
    """

    def __init__(
        self,
        stores: Stores[Index] | Stores[Searches],
        root: Path,
        options: Options,
        done: Callable[[Result, Store, Written], None],
    ) -> None:
        self._stores, self._root, self._options, self._done = stores, root, options, done
        self._pending: list[_Pending] = []

    def add(self, result: Result) -> None:
        """Read what a row is to get, and write it with others that have no result in common."""
        store, index = self._stores.of(result.lineage), self._stores.index(result.lineage)
        # These read the project while they write: write them now, while it is at this commit.
        there = self._stores.look(result)
        revisits = there.has is not None or there.joins is not None
        alone = self._options.dry_run or revisits or any(result.models())
        together = all(
            each.store is store and not each.result.digests.items() & result.digests.items()
            for each in self._pending
        )
        if alone or not together:
            self.send()
        gathered = None if alone else gather(result, [*result.digests], self._root)
        self._pending.append(_Pending(store, index, result, gathered))
        if alone or len(self._pending) == _AT_ONCE:
            self.send()

    def send(self) -> None:
        """Write what is left."""
        if not self._pending:
            return
        pending, self._pending = self._pending, []
        store = pending[0].store
        with ThreadPoolExecutor(_AT_ONCE) as pool, store.lock(), store.errors_reported(AT_MOST):
            send = pool.map if store.is_remote else map  # a database has one writer at a time
            for each in pending:
                each.known.begin()
            for each, written in zip(pending, send(self._write, pending), strict=True):
                if written.known:
                    store.show(written.columns)
                    each.known.update(each.result.origin.time, written.known)
                self._done(each.result, store, written)

    def _write(self, each: _Pending) -> Written:
        store, index, result, gathered = each
        dry, undelete = self._options.dry_run, self._options.deleted
        return write(store, result, index, dry=dry, undelete=undelete, given=gathered)
