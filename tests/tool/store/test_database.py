"""A database that is made, of another version, or left half made."""

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from mlflow import MlflowClient

from dvc_mlflow import processes
from dvc_mlflow.store.database import check_schema, create


def test_clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes that name a clone at the same moment give it one name."""
    (tmp_path / ".git").mkdir()
    first: list[str] = []
    link = os.link

    def late(*paths: str) -> None:
        monkeypatch.setattr(os, "link", link)
        first.append(processes.clone(tmp_path))
        link(*paths)

    monkeypatch.setattr(os, "link", late)
    assert [processes.clone(tmp_path)] == first
    assert processes.clone(tmp_path) == first[0]
    assert len(first[0]) == 32
    assert [path.name for path in (tmp_path / ".git/dvc-mlflow").iterdir()] == ["clone"]


@pytest.mark.parametrize("left", ["empty", "tables", "migrations"])
def test_left_half_made(tmp_path: Path, left: str) -> None:
    """A database that a killed process has left half made is made anew; the other one is kept."""
    file = tmp_path / "mlflow.db"
    if left == "migrations":
        create(tmp_path / "other.db")
        (tmp_path / "other.db").rename(file)
    with closing(sqlite3.connect(file)) as opened, opened:
        if left == "tables":
            opened.execute("CREATE TABLE experiments (experiment_id INTEGER PRIMARY KEY)")
        elif left == "migrations":
            opened.execute("UPDATE alembic_version SET version_num = '451aebb31d03'")
    before = file.read_bytes()
    os.utime(file, (1, 1))
    assert check_schema(f"sqlite:///{file}")
    create(file, anew=True)
    assert not check_schema(f"sqlite:///{file}")
    assert MlflowClient(f"sqlite:///{file}").create_experiment("flowers") == "1"
    assert (tmp_path / "mlflow.db.half-made").read_bytes() == before
