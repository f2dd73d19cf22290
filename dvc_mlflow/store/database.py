"""The database behind a store that is not a server: its file and its schema."""

import os
import re
import sqlite3
from contextlib import closing, suppress
from functools import cache
from pathlib import Path
from typing import Any

import mlflow
import mlflow.store.db.utils
import sqlalchemy
from mlflow.exceptions import MlflowException

from ..place import own_folder

mlflow.store.db.utils.MAX_RETRY_COUNT = 4  # else it tries for minutes to connect
# It reads dozens of scripts each time, for one constant.
mlflow.store.db.utils._get_latest_schema_revision = cache(
    mlflow.store.db.utils._get_latest_schema_revision
)

_ADDRESSES = [
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "storage_location"),
]
"""The tables and columns of MLflow's database that say where files are."""


def check_schema(address: str) -> None:
    """Raise MLflow's error for a database of another version, or MLflow would migrate it."""
    if not re.match("(mssql|mysql|postgresql|sqlite)[:+]", address):
        return
    engine = sqlalchemy.create_engine(address)
    try:
        mlflow.store.db.utils._verify_schema(engine)
    except MlflowException:
        if mlflow.store.db.utils._get_schema_version(engine):  # else MLflow makes its tables
            raise
    finally:
        engine.dispose()


def create(path: Path) -> None:
    """Create MLflow's database, whole or not at all, if it does not exist.

    MLflow creates it table by table and can neither use nor complete a half-made one. Raises
    `FileNotFoundError` if its folder does not exist.
    """
    if not path.parent.is_dir():  # MLflow would make it, even if a disk is not mounted
        raise FileNotFoundError(f"there is no folder {path.parent}")
    if path.exists():
        return

    def connected(connection: Any, _: object) -> None:
        connection.execute(
            "PRAGMA synchronous = OFF"
        )  # else it waits for the disk a thousand times

    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    partial.unlink(missing_ok=True)
    sqlalchemy.event.listen(sqlalchemy.Engine, "connect", connected)
    try:
        mlflow.MlflowClient(f"sqlite:///{partial}").search_experiments(max_results=1)
        with suppress(FileExistsError):  # another process has just made it
            os.link(partial, path)
    finally:
        sqlalchemy.event.remove(sqlalchemy.Engine, "connect", connected)
        partial.unlink(missing_ok=True)


def follow_move(path: Path, root: Path) -> None:
    """Let the addresses in a repository's own database follow the repository at `root`.

    Git's folder knows where it was. Raises what SQLite raises.
    """
    file = own_folder(root) / "place"
    was = Path(file.read_text()) if file.exists() else root
    if was != root and (path.parent / "mlartifacts").is_dir():  # else only the database was copied
        with closing(sqlite3.connect(path)) as store, store:
            for table, column in _ADDRESSES:
                moved = f"UPDATE {table} SET {column} = replace({column}, ?, ?)"  # noqa: S608
                store.execute(moved, [f"{was.as_uri()}/", f"{root.as_uri()}/"])
    file.write_text(f"{root}")
