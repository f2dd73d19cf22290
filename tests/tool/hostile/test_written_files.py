"""Whatever a store says, the tool writes files only where it has chosen."""

import shutil
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from support.clone import environment
from support.hostile import Place, tag
from support.hostile_server import hostile_server
from support.pipelines import Repository

pytestmark = [
    pytest.mark.pipeline,
    pytest.mark.filterwarnings("ignore"),  # warnings from MLflow
]


def changed(project: Repository, *statements: tuple[str, Sequence[object]]) -> None:
    """Change the database of a store past MLflow's own checks."""
    with closing(sqlite3.connect(project.path / "mlflow.db")) as store, store:
        for statement, values in statements:
            store.execute(statement, values)


def lacks_its_result(project: Repository, uri: str) -> None:
    """Let the only row look as if its recording was killed, with its files at an address."""
    (row,) = project.rows()
    tag(project, row.info.run_id, {"dvc-mlflow.process": "1@1"})
    changed(
        project,
        ("DELETE FROM tags WHERE key LIKE 'dvc-mlflow.lock%'", ()),
        ("UPDATE runs SET artifact_uri = ?", (uri,)),
    )


def test_tracked_store(place: Place) -> None:
    """A store that git tracks is refused in a line; if it is named, none of its runs is joined."""
    project, victim = place.project, place.outside / "m.json"
    victim.write_text("mine\n")
    lacks_its_result(project, place.outside.as_uri())
    project.git("add", "-f", "mlflow.db")
    project.git("commit", "-q", "-m", "A store")
    before = (project.path / "mlflow.db").read_bytes()
    for words in (["record"], ["record", "--all"], ["ui"], ["restore", "1234567"]):
        said = place.run(*words)
        (line,) = said.stderr.splitlines()
        assert said.returncode == 1
        assert "git tracks mlflow.db, and is not used; remove it" in line
    assert (project.path / "mlflow.db").read_bytes() == before
    named: dict[str, Any] = {"MLFLOW_TRACKING_URI": f"sqlite:///{project.path}/mlflow.db"}
    assert place.run("record", "--all", **named).returncode == 0
    (row,) = project.rows()
    assert row.info.artifact_uri.startswith((project.path / "mlartifacts").as_uri())
    assert victim.read_text() == "mine\n"
    assert {path.name for path in place.outside.iterdir()} == {
        *("victim.txt", ".gitignore", ".dvc", "params.yaml", "m.json")
    }


@pytest.mark.parametrize("name", ["mlflow.db", "mlartifacts"])
def test_linked_store(place: Place, name: str) -> None:
    """A store that is a link, as to another project's, is refused in a line and stays as it is."""
    project = place.project
    (project.path / name).rename(place.outside / name)
    (project.path / name).symlink_to(place.outside / name)
    project.set({"rate": 2})
    project.dvc("repro", "-q")
    before = place.untouched()
    store = (place.outside / "mlflow.db") if name == "mlflow.db" else project.path / "mlflow.db"
    content = store.read_bytes()
    for words in (["record"], ["record", "--all"]):
        said = place.run(*words)
        (line,) = said.stderr.splitlines()
        assert said.returncode == 1
        assert f"{name} is a link, and is not used" in line
    assert place.untouched() == before
    assert store.read_bytes() == content


def test_run_that_is_elsewhere(place: Place) -> None:
    """A run whose files would be elsewhere than its experiment's is not joined."""
    victim = place.outside / "m.json"
    victim.write_text("mine\n")
    (before,) = place.project.rows()
    lacks_its_result(place.project, place.outside.as_uri())
    assert place.run("record").returncode == 0
    (row,) = place.project.rows()
    assert row.info.run_id != before.info.run_id
    assert victim.read_text() == "mine\n"


def test_experiment_that_is_elsewhere(place: Place) -> None:
    """In the own store, an experiment elsewhere gets rows without files, and a line says why."""
    project = place.project
    project.client.create_experiment("other", artifact_location=f"{place.outside}/files")
    (row,) = project.rows()
    project.client.delete_run(row.info.run_id)
    project.set({"rate": 2})
    project.dvc("repro", "-q")
    said = place.run("record", MLFLOW_EXPERIMENT_NAME="other")
    assert "a row's files are left out: its experiment keeps files elsewhere" in said.stderr
    assert [row.data.params["rate"] for row in project.rows()] == ["2"]
    assert not (place.outside / "files").exists()


@pytest.mark.parametrize("run_id", ["f" * 32, "../../outside/x"])
def test_server_that_names_a_place(place: Place, run_id: str) -> None:
    """A server that names any place of this machine gets a row without files."""
    where = place.outside.as_uri()
    before = place.untouched()
    with hostile_server(where, run_id) as address:
        said = place.run("record", MLFLOW_TRACKING_URI=address)
    assert said.stderr.count("a row's files are left out: MLflow") == 1
    assert place.untouched() == before


def test_server_without_an_end(place: Place) -> None:
    """A server that sends the same page again and again is given up."""
    with hostile_server("mlflow-artifacts:/1", next_page="again") as address:
        said = place.run("record", "--all", MLFLOW_TRACKING_URI=address, seconds=60)
    (line,) = said.stderr.splitlines()
    assert "the server sends the same page of runs again and again" in line


@pytest.mark.parametrize("named", [False, True])
def test_other_experiment_after_a_move(place: Place, tmp_path: Path, named: bool) -> None:
    """After a move, only what this store kept in its repository has a new address."""
    project = place.project
    if named:  # dvc.yaml can name all experiments
        changed(project, ("DELETE FROM experiment_tags WHERE key = 'dvc.default'", ()))
    shelf = (tmp_path / "disk" / "mlartifacts").as_uri()
    other = project.client.create_experiment("other", artifact_location=shelf)
    run = project.client.create_run(other).info
    moved = Repository(project.path.rename(tmp_path / "moved"))
    assert moved.record().out.startswith("nothing to do")
    assert moved.client.get_experiment(other).artifact_location == shelf
    assert moved.client.get_run(run.run_id).info.artifact_uri == run.artifact_uri
    (row,) = (row for row in moved.rows() if row.info.experiment_id != other)
    assert row.info.artifact_uri.startswith((moved.path / "mlartifacts").as_uri())


def test_database_of_another_project(place: Place, tmp_path: Path) -> None:
    """A database that was copied alone keeps the addresses of the files that are still there."""
    (row,) = place.project.rows()
    other = Repository(tmp_path / "other")
    ignored = shutil.ignore_patterns("mlartifacts")
    shutil.copytree(place.project.path, other.path, ignore=ignored, symlinks=True)
    assert other.tool("record", **environment()).out.startswith("nothing to do")
    (copied,) = other.rows()
    assert copied.info.artifact_uri == row.info.artifact_uri
