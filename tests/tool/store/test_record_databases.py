"""If `record` cannot use its database, one line names the cure, and the database stays as it is."""

import os
import re
import shutil
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from support.disks import immutable, small_disk
from support.pipelines import Repository, served
from support.refusals import is_plain, record, recorded_once, refused, refused_here

pytestmark = [
    pytest.mark.pipeline,
    pytest.mark.filterwarnings("ignore"),  # warnings from MLflow
]


@pytest.fixture(scope="session")
def made() -> Repository:
    """A pipeline with a model that has run once, for all tests: `copy` it."""
    return served()


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """The same with a row: `copy_whole` it."""
    return recorded_once(tmp_path_factory.mktemp("recorded"))


ANOTHER = "; check that its address is that of an MLflow store"
WRITABLE = "; make it writable for you"


def of_version(number: str) -> Callable[[Path], None]:
    """Return what makes a database look like one of another MLflow."""

    def change(database: Path) -> None:
        with closing(sqlite3.connect(database)) as store, store:
            (own,) = store.execute("SELECT version_num FROM alembic_version").fetchone()
            assert own != number
            store.execute("UPDATE alembic_version SET version_num = ?", [number])
            store.execute("DROP TABLE logged_model_tags")  # then MLflow would migrate it

    return change


def to_folder(database: Path) -> None:
    """Put a folder in the place of a database."""
    database.unlink()
    database.mkdir()


UPGRADE = "; back it up, and run `mlflow db upgrade` on it"
UNUSABLE: dict[str, tuple[Callable[[Path], object], str]] = {
    "random": (lambda path: path.write_bytes(os.urandom(10_000)), ANOTHER),
    "truncated": (lambda path: os.truncate(path, path.stat().st_size // 3), ANOTHER),
    "a folder": (to_folder, WRITABLE),
    "newer": (of_version("abcdef012345"), UPGRADE),
    "MLflow 3.0": (of_version("6953534de441"), UPGRADE),
    "MLflow 1": (of_version("cfd24bdc0731"), UPGRADE),
}


@pytest.mark.parametrize("kind", UNUSABLE)
def test_unusable_database(recorded: Repository, tmp_path: Path, kind: str) -> None:
    """A damaged database, or one of another MLflow, is left as it is; the line names the cure."""
    project = recorded.copy_whole(tmp_path / "project")
    database = project.path / "mlflow.db"
    change, cure = UNUSABLE[kind]
    change(database)
    before = database.read_bytes() if database.is_file() else b""
    line = refused_here(project)
    assert line.startswith(f"MLflow at sqlite:///{database}: ")
    assert line.endswith(cure)
    assert (database.read_bytes() if database.is_file() else b"") == before


def test_no_folder(project: Repository, tmp_path: Path) -> None:
    """No database is created in a missing folder, which may be an unmounted disk.

    If the repository itself is read-only, `record` says so.
    """
    line = refused_here(project, MLFLOW_TRACKING_URI=f"sqlite:///{tmp_path}/none/rows.db")
    assert line == (
        f"MLflow at sqlite:///{tmp_path}/none/rows.db: there is no folder {tmp_path}/none; "
        "check that its address is that of an MLflow store"
    )
    assert not (tmp_path / "none").exists()
    project.remove_store()
    own = project.path / ".git/dvc-mlflow"
    shutil.rmtree(own, ignore_errors=True)
    own.mkdir()
    for folder in (".", ".git/dvc-mlflow"):
        with immutable(project.path / folder):
            assert re.search("unable to open|not permitted|denied", refused_here(project))


@pytest.mark.rest
def test_busy_database(recorded: Repository, tmp_path: Path) -> None:
    """If another process holds the database, the line says to wait; for a writer, it waits."""
    project = recorded.copy_with_rows(tmp_path / "project")
    project.set({"a": 2})
    project.dvc("repro", "-q")
    with closing(sqlite3.connect(project.path / "mlflow.db", check_same_thread=False)) as holder:
        holder.execute("BEGIN EXCLUSIVE")
        line = refused_here(project)
        assert line.endswith(": database is locked; run it again when it is free")
        holder.rollback()
        holder.execute("BEGIN IMMEDIATE")
        threading.Timer(6, holder.rollback).start()
        done = record(project)
        assert (done.returncode, done.stderr) == (0, "")
    assert [row.data.metrics["a/score"] for row in project.rows()] == [1, 2]


@pytest.mark.rest
def test_read_only_database(recorded: Repository, tmp_path: Path) -> None:
    """A complete store may be read-only; otherwise the line says to make it writable."""
    project = recorded.copy_with_rows(tmp_path / "project")
    database = project.path / "mlflow.db"
    with immutable(database):
        said = project.record()
        assert (said.status, said.error) == (0, "")
    project.set({"a": 2})
    project.dvc("repro", "-q")
    with immutable(database):
        line = refused(project)  # this process has opened it to write
    assert line.startswith(f"MLflow at sqlite:///{database}: ")
    assert line.endswith(WRITABLE)


@pytest.mark.rest
def test_full_disk(project: Repository, tmp_path: Path) -> None:
    """A full disk is reported; once there is room, `record` makes exactly one row."""
    with small_disk(tmp_path / "disk", "256k") as disk:
        line = refused_here(project, MLFLOW_TRACKING_URI=f"sqlite:///{disk}/rows.db")
        assert not [*disk.iterdir()]
    assert line.endswith("; make room on its disk")
    with small_disk(project.path / "mlartifacts", "4k"):
        assert refused_here(project).endswith("; make room on its disk")
    said = project.record()
    assert (said.status, is_plain(said.out)) == (0, True)
    (row,) = project.rows()
    assert row.info.status == "FINISHED"
    assert "model.txt" in project.artifacts(row)
