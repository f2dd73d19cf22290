"""Update mlflow.db after its repository was moved or copied: MLflow stores absolute addresses."""

import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import unquote, urlsplit

_ADDRESSES = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)


def follow(root: Path) -> None:
    """Make the rows of mlflow.db point to the files of the repository that it is in now.

    All rows change or none; the old database is kept beside it. Raises `OSError`.
    """
    database, here = root / "mlflow.db", root.resolve().as_uri()
    if not database.exists():
        return
    try:
        with closing(sqlite3.connect(database)) as store, store:
            for old in _places(store) - {here}:
                shutil.copyfile(database, f"{database}.before-move")
                for table, column in _ADDRESSES:
                    _replace(store, table, column, f"{old}/mlartifacts", f"{here}/mlartifacts")
                paths = [unquote(urlsplit(uri).path) for uri in (old, here)]
                _replace(store, "experiments", "artifact_location", f"{paths[0]}/", f"{paths[1]}/")
                was, now = (json.dumps({"uri": f"{path}/"})[:-2] for path in paths)
                _replace(store, "datasets", "dataset_source", was, now)
    except sqlite3.Error as error:
        raise OSError(f"{error}") from None


def _places(store: sqlite3.Connection) -> set[str]:
    """Return the repositories whose mlartifacts/ the store's experiments use."""
    like = "SELECT artifact_location FROM experiments WHERE artifact_location LIKE ?"
    found = store.execute(like, ["file://%/mlartifacts"]).fetchall()
    return {str(location).removesuffix("/mlartifacts") for (location,) in found}


def _replace(store: sqlite3.Connection, table: str, column: str, old: str, new: str) -> None:
    start = f"substr({column}, 1, {len(old)}) = ?"
    update = f"UPDATE {table} SET {column} = ? || substr({column}, {len(old) + 1}) WHERE {start}"  # noqa: S608  (names in this file)
    store.execute(update, [new, old])
