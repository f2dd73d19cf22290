"""If `record` cannot use its database, one line names the cure, and the database stays as it is."""

import os
import re
import shutil
import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import pytest

from support.disks import immutable, small_disk
from support.pipelines import Repository
from support.refusals import record, recorded_once, refused

pytestmark = [
    pytest.mark.pipeline,
    pytest.mark.filterwarnings("ignore"),  # warnings from MLflow
]


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """A pipeline that has run once and has a row, for all tests: copy it."""
    return recorded_once(tmp_path_factory.mktemp("made"))


@pytest.fixture
def recorded(made: Repository, tmp_path: Path) -> Repository:
    """A copy of that repository with its store."""
    return made.copy_with_rows(tmp_path / "project")


BACKUP = "; restore a backup, or move it away to start a new store"


def test_missing_folder(project: Repository, tmp_path: Path) -> None:
    """No database is created in a missing folder, which may be an unmounted disk."""
    line = refused(project, MLFLOW_TRACKING_URI=f"sqlite:///{tmp_path}/none/rows.db")
    assert line == (
        f"MLflow at sqlite:///{tmp_path}/none/rows.db: there is no folder {tmp_path}/none; "
        "make it, or correct MLFLOW_TRACKING_URI"
    )
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    "damage",
    [
        "random",
        *(pytest.param(d, marks=pytest.mark.rest) for d in ("truncated", "folder")),
    ],
)
def test_damaged_database(recorded: Repository, damage: str) -> None:
    """A damaged database is left as it is, and the line names the cure."""
    database = recorded.path / "mlflow.db"
    if damage == "random":
        database.write_bytes(os.urandom(10_000))
    elif damage == "truncated":
        os.truncate(database, database.stat().st_size // 3)
    else:
        database.unlink()
        database.mkdir()
    before = database.read_bytes() if damage != "folder" else b""
    line = refused(recorded)
    assert line.startswith(f"MLflow at sqlite:///{database}: ")
    assert line.endswith("; make it writable for you" if damage == "folder" else BACKUP)
    assert damage == "folder" or database.read_bytes() == before


@pytest.mark.rest
def test_locked_database(recorded: Repository) -> None:
    """If another process holds the database, the line says to wait."""
    recorded.set({"a": 2})
    recorded.dvc("repro", "-q")
    with closing(sqlite3.connect(recorded.path / "mlflow.db")) as holder:
        holder.execute("BEGIN EXCLUSIVE")
        line = refused(recorded)
    assert line.endswith(": database is locked; run it again when it is free")
    assert record(recorded).returncode == 0
    assert [row.data.metrics["a/score"] for row in recorded.rows()] == [1, 2]


@pytest.mark.rest
def test_writer(recorded: Repository) -> None:
    """Beside a process that writes to the database, `record` waits for it."""
    recorded.set({"a": 2})
    recorded.dvc("repro", "-q")
    with closing(sqlite3.connect(recorded.path / "mlflow.db", check_same_thread=False)) as holder:
        holder.execute("BEGIN IMMEDIATE")
        threading.Timer(6, holder.rollback).start()
        done = record(recorded)
        assert (done.returncode, done.stderr) == (0, "")
    assert [row.data.metrics["a/score"] for row in recorded.rows()] == [1, 2]


@pytest.mark.rest
def test_read_only_database(recorded: Repository) -> None:
    """A complete store may be read-only; otherwise the line says to make it writable."""
    database = recorded.path / "mlflow.db"
    with immutable(database):
        done = record(recorded)
        assert (done.returncode, done.stderr) == (0, "")
    recorded.set({"a": 2})
    recorded.dvc("repro", "-q")
    with immutable(database):
        line = refused(recorded)
    assert line.startswith(f"MLflow at sqlite:///{database}: ")
    assert line.endswith("; make it writable for you")


@pytest.mark.parametrize("folder", [".", ".dvc/tmp"])
def test_read_only_folder(project: Repository, folder: str) -> None:
    """If the repository itself is read-only, `record` says so."""
    shutil.rmtree(project.path / ".dvc" / "tmp")
    (project.path / ".dvc" / "tmp").mkdir()
    with immutable(project.path / folder):
        line = refused(project)
    assert re.search("unable to open|not permitted|denied", line)


@pytest.mark.rest
def test_full_disk(project: Repository, tmp_path: Path) -> None:
    """A full disk is reported; once there is room, `record` makes exactly one row."""
    with small_disk(tmp_path / "disk", "256k") as disk:
        line = refused(project, MLFLOW_TRACKING_URI=f"sqlite:///{disk}/rows.db")
        assert not [*disk.iterdir()]
    assert line.endswith("; make room on its disk")
    with small_disk(project.path / "mlartifacts", "4k"):
        assert refused(project).endswith("; make room on its disk")
    assert record(project).returncode == 0
    (row,) = project.rows()
    assert row.info.status == "FINISHED"
    assert "model.txt" in project.artifacts(row)


@pytest.mark.parametrize(
    ("version", "cure"),
    [
        ("abcdef012345", "use the version of MLflow that last wrote to it"),
        ("6953534de441", "back it up, and run `mlflow db upgrade` on it"),  # of MLflow 3.0
        ("cfd24bdc0731", "back it up, and run `mlflow db upgrade` on it"),  # of MLflow 1
    ],
    ids=["newer", "older", "oldest"],
)
def test_other_schema(recorded: Repository, version: str, cure: str) -> None:
    """A database of another MLflow version is not touched; the line says how to use it."""
    with closing(sqlite3.connect(recorded.path / "mlflow.db")) as store, store:
        (own,) = store.execute("SELECT version_num FROM alembic_version").fetchone()
        if version == own:
            pytest.skip("it is this MLflow's own")
        store.execute("UPDATE alembic_version SET version_num = ?", [version])
        store.execute("DROP TABLE logged_model_tags")  # then MLflow would migrate it
    before = (recorded.path / "mlflow.db").read_bytes()
    line = refused(recorded)
    assert f"(found version {version}, " in line
    assert line.endswith(f"; {cure}")
    assert (recorded.path / "mlflow.db").read_bytes() == before
