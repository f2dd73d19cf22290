"""Rows and their files are found in worktrees, and after a repository was moved or copied."""

import shutil
from pathlib import Path

import pytest
from mlflow import MlflowClient

from support.pipelines import TWO_EVALUATIONS, Repository, repository, served
from support.stores import NOTHING, check_loads, experiments, files, path_of, rows_of

pytestmark = [
    pytest.mark.pipeline,
    pytest.mark.versions,
    pytest.mark.filterwarnings("ignore"),  # warnings from MLflow
]


@pytest.fixture(scope="session")
def made() -> Repository:
    """A pipeline with a model that has run once, for all tests: `copy` it."""
    return served()


def test_worktree(project: Repository, tmp_path: Path) -> None:
    """A git worktree's results go to the main repository's store, even if it lacks .dvc/tmp."""
    shutil.rmtree(project.path / ".dvc" / "tmp")
    project.git("worktree", "add", "-q", "-b", "other", str(tmp_path / "tree"))
    tree = Repository(tmp_path / "tree")
    tree.set({"rate": 2})
    tree.dvc("repro", "-q")
    tree.commit("Other results")
    tree.record()
    assert not (tree.path / "mlflow.db").exists()
    (row,) = project.rows()
    assert row.data.params["rate"] == "2"
    assert row.data.tags["mlflow.source.git.branch"] == "other"
    project.record()
    assert {row.data.params["rate"] for row in project.rows()} == {"1", "2"}
    assert tree.record().out.startswith(NOTHING)
    assert experiments(project) == ["project"]


@pytest.mark.parametrize("name", ["moved/project", "renamed"])
@pytest.mark.parametrize("copied", [False, True], ids=["moved", "copied"])
def test_moved_repository(project: Repository, tmp_path: Path, name: str, copied: bool) -> None:
    """After a repository was moved, renamed or copied, its artifacts load and no row is doubled."""
    project.record()
    place = tmp_path / name
    place.parent.mkdir(exist_ok=True)
    if copied:
        shutil.copytree(project.path, place, symlinks=True)
        assert project.record().out.startswith(NOTHING)
        (row,) = project.rows()
        check_loads(project, row)
        shutil.rmtree(project.path)
    else:
        project.path.rename(place)
    moved = Repository(place)
    assert moved.record("--dry-run").out.startswith(NOTHING)
    assert moved.record().out.startswith(NOTHING)
    assert experiments(moved) == ["project"]
    (row,) = moved.rows()
    check_loads(moved, row)
    moved.set({"a": 2})
    moved.dvc("repro", "-q")
    moved.record()
    assert [row.data.metrics["a/score"] for row in moved.rows()] == [1, 2]
    assert experiments(moved) == ["project"]
    for row in moved.rows():
        check_loads(moved, row)
    assert not project.path.exists()


def test_renamed_experiment(project: Repository) -> None:
    """The default experiment may be renamed in MLflow; new rows still go to it."""
    project.record()
    (row,) = project.rows()
    project.client.rename_experiment(row.info.experiment_id, "My experiment")
    assert project.record().out.startswith(NOTHING)
    project.set({"a": 2})
    project.dvc("repro", "-q")
    assert project.record().out.startswith("My experiment: added")
    assert experiments(project) == ["My experiment"]


def test_without_git(made: Repository, tmp_path: Path) -> None:
    """Without git, a project's store is in its root, wherever in it `record` is called."""
    project = made.copy(tmp_path / "project")
    shutil.rmtree(project.path / ".git")
    project.dvc("config", "core.no_scm", "true")
    project.write({"some/folder/file": ""})
    project.record(folder="some/folder")
    (row,) = project.rows()
    assert row.data.metrics == {"train/loss": 0.25, "a/score": 1}
    assert not {key for key in row.data.tags if "git" in key}
    digits = row.data.tags["dvc-mlflow.found-by"][:7]
    assert row.info.run_name == f"rate=1 a=1 {digits}"
    assert row.data.tags["mlflow.user"]
    assert experiments(project) == ["project"]
    assert files(project.path / "some") == {"folder", "folder/file"}
    assert project.record().out.startswith(NOTHING)
    check_loads(project, row)


def test_project_without_scm(made: Repository, tmp_path: Path) -> None:
    """The history of a project made by `dvc init --no-scm` is recorded if git has it after all."""
    project = made.copy(tmp_path / "project")
    project.dvc("config", "core.no_scm", "true")
    project.run("rm", ".dvc/.gitignore")
    project.commit("Results")
    said = project.record("--all")
    assert (said.error, said.status) == ("", 0)
    (row,) = project.rows()
    assert row.data.metrics == {"train/loss": 0.25, "a/score": 1}
    assert project.record().out.startswith(NOTHING)
    said = project.tool("restore", row.info.run_id)
    assert (said.error, said.status) == ("", 0)
    project.set({"a": 2})
    project.dvc("repro", "-q")
    assert project.record().error == ""


def test_without_commits(tmp_path: Path) -> None:
    """A result from before the first commit has no commit, and is not recorded again later."""
    project = repository(tmp_path / "project", TWO_EVALUATIONS)
    shutil.rmtree(project.path / ".git")
    project.git("init", "-q", "-b", "main")
    project.dvc("repro", "-q")
    project.record()
    (row,) = project.rows()
    digits = row.data.tags["dvc-mlflow.found-by"][:7]
    assert row.info.run_name == f"rate=1 a=1 b=1 {digits}"
    assert "mlflow.source.git.commit" not in row.data.tags
    project.commit("First")
    assert project.record().out.startswith(NOTHING)


@pytest.mark.parametrize("name", ["with space", "ümläut"])
def test_path(made: Repository, tmp_path: Path, name: str) -> None:
    """A path may have spaces and letters of any alphabet."""
    project = made.copy(tmp_path / name)
    project.record()
    (row,) = project.rows()
    check_loads(project, row)
    assert project.record().out.startswith(NOTHING)
    renamed = Repository(project.path.rename(tmp_path / f"{name} 2"))
    assert renamed.record().out.startswith(NOTHING)
    check_loads(renamed, renamed.rows()[0])


@pytest.mark.parametrize("name", ["what?", "100%20", "a#b"])
@pytest.mark.parametrize("address", ["", "sqlite:///rows.db"], ids=["own", "relative"])
def test_path_that_mlflow_would_misread(
    made: Repository,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    address: str,
) -> None:
    """A path that MLflow would misread in an address is refused, and nothing is created."""
    project = made.copy(tmp_path / name)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    before = files(tmp_path)
    said = project.record()
    assert (said.out, said.status) == ("", 1)
    assert said.error.endswith(
        ": the path of the repository must not contain ?, # or %; move it, or set "
        "MLFLOW_TRACKING_URI\n"
    )
    assert files(tmp_path) == before
    # A store elsewhere is not affected.
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/rows.db")
    assert project.record().status == 0
    (row,) = rows_of(f"sqlite:///{tmp_path}/rows.db")
    row = MlflowClient(f"sqlite:///{tmp_path}/rows.db").get_run(row.info.run_id)
    assert Path(path_of(row.info.artifact_uri), "model.txt").is_file()
