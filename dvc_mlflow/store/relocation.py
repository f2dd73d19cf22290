"""Update mlflow.db after its repository was moved or copied: MLflow stores absolute addresses."""

import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import unquote, urlsplit

from ..pipeline.tags import DEFAULT
from .table_view import KEY

_OF_EXPERIMENTS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("datasets", "dataset_source"),
)
_OF_MODELS = (("model_versions", "source"), ("model_versions", "storage_location"))


def relocate(root: Path) -> None:
    """Make the rows of mlflow.db point to the files of the repository that it is in now.

    This applies to experiments that kept their files in this store's place; others stay as they
    are. All rows change or none; the old database is kept beside it. Raises `OSError`.
    """
    database, here = root / "mlflow.db", root.resolve()
    if not database.exists():
        return
    try:
        with closing(sqlite3.connect(database)) as store, store:
            old = _place(store)
            if old and old != here and not _is_only_a_copy(old, here):
                shutil.copyfile(database, f"{database}.before-move")
                _move(store, old, here)
    except sqlite3.Error as error:
        raise OSError(f"{error}") from None


def _place(store: sqlite3.Connection) -> Path | None:
    """Return the repository in which this store kept its rows' files, if that is known.

    The default experiment tells; without one, the others that the tool has made do.
    """
    query = (
        "SELECT DISTINCT artifact_location FROM experiments JOIN experiment_tags "
        "USING (experiment_id) WHERE key = ? AND artifact_location LIKE 'file://%/mlartifacts'"
    )
    for key in (DEFAULT, KEY):
        found = [location for (location,) in store.execute(query, [key])]
        if len(found) == 1:
            return Path(unquote(urlsplit(found[0]).path)).parent
    return None


def _is_only_a_copy(old: Path, here: Path) -> bool:
    """Whether the rows' files are still where they were, and the database alone was copied."""
    return (old / "mlartifacts").is_dir() and not (here / "mlartifacts").is_dir()


def _move(store: sqlite3.Connection, old: Path, here: Path) -> None:
    """Replace the old place in the addresses of the experiments that kept their files there."""
    uris = [f"{place.as_uri()}/mlartifacts" for place in (old, here)]
    paths = [f"{place}/mlartifacts" for place in (old, here)]  # as of the experiment `Default`
    # A data set's source is a file in DVC's cache.
    sources = [json.dumps({"uri": f"{place}"})[:-2] for place in (old, here)]
    ours = [
        f"experiment_id = {int(number)}"
        for number, location in store.execute(
            "SELECT experiment_id, artifact_location FROM experiments"
        )
        if f"{location}/".startswith((f"{uris[0]}/", f"{paths[0]}/"))
    ]
    for was, now in (uris, paths, sources):
        for table, column in _OF_EXPERIMENTS:
            for own in ours:
                _replace(store, table, column, was, now, own)
        for table, column in _OF_MODELS:
            _replace(store, table, column, was, now)


def _replace(
    store: sqlite3.Connection, table: str, column: str, was: str, now: str, own: str = "TRUE"
) -> None:
    """Replace the start of a column's values, a path, in the rows for which `own` is true."""
    start = f"substr({column} || '/', 1, {len(was) + 1}) = ?"
    update = f"UPDATE {table} SET {column} = ? || substr({column}, {len(was) + 1}) WHERE {start}"  # noqa: S608  (names in this file)
    store.execute(f"{update} AND {own}", [now, f"{was}/"])
