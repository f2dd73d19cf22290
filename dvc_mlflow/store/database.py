"""The database behind a store that is not a server: its file, its schema, its changes."""

import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import mlflow
import mlflow.store.db.utils
import sqlalchemy
from mlflow.exceptions import MlflowException

from ..place import file_of

mlflow.store.db.utils.MAX_RETRY_COUNT = 4  # else it tries for minutes to connect
# It reads dozens of scripts each time, for one constant.
mlflow.store.db.utils._get_latest_schema_revision = cache(
    mlflow.store.db.utils._get_latest_schema_revision
)

_MAKING, _MOMENT = 20, 0.05  # seconds
_CONTENT = {"experiments", "experiment_tags", "runs", "registered_models"}
"""MLflow's tables without which there is nothing in the others."""
_PAUSE = 2  # seconds, at most, between what MLflow writes while it makes a database


def check_schema(address: str) -> bool:
    """Raise MLflow's error for a database of another version, or MLflow would migrate it.

    While a script's MLflow makes it, wait: two that make its tables disturb each other. Return
    whether it is a file that was left half made, and holds nothing.
    """
    if not re.match("(mssql|mysql|postgresql|sqlite)[:+]", address):
        return False
    engine, file = sqlalchemy.create_engine(address), file_of(address)
    deadline = time.monotonic() + _MAKING
    try:
        while (wrong := _wrong_schema(engine)) and _is_being_made(file):
            if time.monotonic() > deadline:
                break
            time.sleep(_MOMENT)
        if wrong is None:
            return False
        if file and not _is_being_made(file) and _holds_nothing(engine):
            return True
        if mlflow.store.db.utils._get_schema_version(engine):
            raise wrong
        return False
    finally:
        engine.dispose()


def _holds_nothing(engine: sqlalchemy.Engine) -> bool:
    """Whether a database has no row that somebody could miss; one experiment comes with it."""
    there = {*sqlalchemy.inspect(engine).get_table_names()}
    with engine.connect() as connection:
        for table in _CONTENT & there:
            rows = connection.execute(sqlalchemy.text(f"SELECT 1 FROM {table} LIMIT 2")).all()  # noqa: S608
            if len(rows) > (table == "experiments"):
                return False
    return True


def _wrong_schema(engine: sqlalchemy.Engine) -> MlflowException | None:
    """Return MLflow's error for a database that has not this version's tables."""
    try:
        mlflow.store.db.utils._verify_schema(engine)
    except MlflowException as error:
        return error
    return None


def _is_being_made(file: Path | None) -> bool:
    """Whether somebody has written to a database just now."""
    try:
        return file is not None and time.time() - file.stat().st_mtime < _PAUSE
    except OSError:
        return False


def create(path: Path, *, anew: bool = False) -> None:
    """Create MLflow's database, whole or not at all, if it does not exist, or `anew`.

    MLflow creates it table by table and can neither use nor complete a half-made one. Raises
    `FileNotFoundError` if its folder does not exist.
    """
    if not path.parent.is_dir():  # MLflow would make it, even if a disk is not mounted
        raise FileNotFoundError(f"there is no folder {path.parent}")
    if anew or not path.exists():
        # Clones that share a database can make it at the same moment.
        partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
        partial.unlink(missing_ok=True)
        try:
            with _unsynced():
                mlflow.MlflowClient(f"sqlite:///{partial}").search_experiments(max_results=1)
            with partial.open("rb") as file:
                os.fsync(file)
            if anew:
                for end in ("", "-journal"):  # a server of another version may use it
                    with suppress(FileNotFoundError):
                        Path(f"{path}{end}").rename(f"{path}.half-made{end}")
            try:
                os.link(partial, path)
            except FileExistsError:  # another clone's, or a script's MLflow is at it
                check_schema(f"sqlite:///{path}")
            except OSError:  # a file system without links
                with suppress(FileExistsError), path.open("xb") as new:
                    new.write(partial.read_bytes())
        finally:
            partial.unlink(missing_ok=True)


@contextmanager
def _unsynced() -> Iterator[None]:
    """Let SQLite not wait for the disk, as it would a thousand times for MLflow's tables."""

    def connected(connection: Any, _: object) -> None:
        connection.execute("PRAGMA synchronous = OFF")

    sqlalchemy.event.listen(sqlalchemy.Engine, "connect", connected)
    try:
        yield
    finally:
        sqlalchemy.event.remove(sqlalchemy.Engine, "connect", connected)
