"""Whatever a store says, the tool writes files only where it has chosen."""

import shutil
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pytest
from mlflow.entities import Run

from support.clone import environment
from support.hostile import Place, tag
from support.hostile_server import hostile_server
from support.pipelines import Repository
from support.stores import rows_of

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


def rows_in_git(project: Repository) -> list[Run]:
    """Return the rows of the store in git's folder."""
    return rows_of(f"sqlite:///{project.path}/.git/dvc-mlflow/mlflow.db")


def test_tracked_store(place: Place) -> None:
    """A store that git tracks is left alone: the tool's own is in git's folder, and a line says so.

    If it is named, none of its runs is joined.
    """
    project, victim = place.project, place.outside / "m.json"
    victim.write_text("mine\n")
    lacks_its_result(project, place.outside.as_uri())
    project.git("add", "-f", "mlflow.db")
    project.git("commit", "-q", "-m", "A store")
    before, store = place.untouched(), (project.path / "mlflow.db").read_bytes()
    own = project.path / ".git/dvc-mlflow"
    for words in (["record"], ["record", "--all"]):
        said = place.run(*words)
        (line,) = (line for line in said.error.splitlines() if "tracked" in line)
        assert f"mlflow.db is tracked by git, so MLflow's store is {own}/mlflow.db" in line
        assert said.status == 0
    (row,) = rows_in_git(project)
    assert row.info.artifact_uri.startswith((own / "mlartifacts").as_uri())
    assert place.tool("restore", row.info.run_id).status == 0
    assert (project.path / "mlflow.db").read_bytes() == store
    named = f"sqlite:///{project.path}/mlflow.db"
    assert place.tool("record", "--all", MLFLOW_TRACKING_URI=named).status == 0
    uris = [row.info.artifact_uri for row in project.rows()]
    assert [uri.startswith(place.outside.as_uri()) for uri in sorted(uris)] == [False, True]
    assert place.untouched() == before


def test_scripts_beside_a_tracked_store(place: Place) -> None:
    """Where git tracks mlflow.db, `run` sends what scripts log to the tool's own store."""
    project = place.project
    project.git("add", "-f", "mlflow.db")
    script = "import mlflow; mlflow.log_metric('mine', 1)"
    project.run("dvc-mlflow", "run", "python", "-c", script)
    assert [row.data.metrics for row in rows_in_git(project)] == [{"mine": 1}]


@pytest.mark.parametrize("name", ["mlflow.db", "mlartifacts", "mlflow.db-journal"])
def test_linked_store(place: Place, name: str) -> None:
    """A store that is a link, as to another project's, is left alone in the same way."""
    project = place.project
    project.set({"rate": 2})
    project.dvc("repro", "-q")
    here, there = project.path / name, place.outside / name
    if here.exists():
        here.rename(there)
    here.symlink_to(there)
    before, content = place.untouched(), (project.path / "mlflow.db").read_bytes()
    for words in (["record"], ["record", "--all"]):
        assert f"{name} is a link, so MLflow's store is " in place.run(*words).error
    assert [row.data.params["rate"] for row in rows_in_git(project)] == ["2", "1"]
    assert place.untouched() == before
    assert (project.path / "mlflow.db").read_bytes() == content


def test_run_that_is_elsewhere(place: Place) -> None:
    """A run whose files would be elsewhere than its experiment's is not joined."""
    (row,) = place.project.rows()
    lacks_its_result(place.project, place.outside.as_uri())
    before = place.untouched()
    assert place.tool("record").status == 0
    (other,) = (r for r in place.project.rows() if r.info.run_id != row.info.run_id)
    assert not other.info.artifact_uri.startswith(place.outside.as_uri())
    assert place.untouched() == before


def test_experiment_that_is_elsewhere(place: Place) -> None:
    """In the own store, an experiment elsewhere gets rows without files, and a line says why."""
    project = place.project
    project.client.create_experiment("other", artifact_location=f"{place.outside}/files")
    (row,) = project.rows()
    project.client.delete_run(row.info.run_id)
    project.set({"rate": 2})
    project.dvc("repro", "-q")
    said = place.tool("record", MLFLOW_EXPERIMENT_NAME="other")
    assert "a row's files are left out: its experiment keeps files elsewhere" in said.error
    assert [row.data.params["rate"] for row in project.rows()] == ["2"]
    assert not (place.outside / "files").exists()


def test_hostile_server(place: Place) -> None:
    """A server that names a place of this machine gets no files; one without an end is left."""
    where, before = place.outside.as_uri(), place.untouched()
    ids = {"f" * 32: "a row's files are left out: MLflow", "../../outside/x": "Invalid value"}
    for run_id, line in ids.items():
        with hostile_server(where, run_id) as address:
            said = place.tool("record", MLFLOW_TRACKING_URI=address)
        assert said.error.count(line) == 1, said
        assert place.untouched() == before
    with hostile_server("mlflow-artifacts:/1", next_page="again") as address:
        said = place.tool("record", "--all", MLFLOW_TRACKING_URI=address)
    (line,) = said.error.splitlines()
    assert "the server sends the same page of runs again and again" in line


def test_other_experiment_after_a_move(place: Place, tmp_path: Path) -> None:
    """After a move, only what this store kept in its repository has a new address.

    That is so, too, if dvc.yaml names all experiments, so that none is the repository's default.
    """
    project = place.project
    shelf = (tmp_path / "disk" / "mlartifacts").as_uri()
    other = project.client.create_experiment("other", artifact_location=shelf)
    run = project.client.create_run(other).info
    for name in ("moved", "again"):
        project = Repository(project.path.rename(tmp_path / name))
        assert project.record().out.startswith("nothing to do")
        assert project.client.get_experiment(other).artifact_location == shelf
        assert project.client.get_run(run.run_id).info.artifact_uri == run.artifact_uri
        (row,) = (row for row in project.rows() if row.info.experiment_id != other)
        assert row.info.artifact_uri.startswith((project.path / "mlartifacts").as_uri())
        changed(project, ("DELETE FROM experiment_tags WHERE key = 'dvc.default'", ()))


def test_database_of_another_project(place: Place, tmp_path: Path) -> None:
    """A database that was copied alone keeps the addresses of the files that are still there."""
    (row,) = place.project.rows()
    other = Repository(tmp_path / "other")
    ignored = shutil.ignore_patterns("mlartifacts")
    shutil.copytree(place.project.path, other.path, ignore=ignored, symlinks=True)
    assert other.tool("record", **environment()).out.startswith("nothing to do")
    (copied,) = other.rows()
    assert copied.info.artifact_uri == row.info.artifact_uri
