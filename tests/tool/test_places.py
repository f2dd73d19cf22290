"""Where rows go, with real DVC and git: the repository's own store, wherever the project is."""

import json
import shutil
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import mlflow
import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from pipelines import (
    LOADER,
    MODEL,
    PARAMS,
    SERVED,
    TWO_EVALUATIONS,
    Repository,
    evaluate,
    finished,
    prepare,
    repository,
    train,
)
from servers import serving

pytestmark = [
    pytest.mark.pipeline,
    pytest.mark.filterwarnings("ignore"),  # what MLflow warns of in the test's process
]

NOTHING = "nothing to do: MLflow has this result\n"


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """A pipeline with a model that has run once, for all tests: `copy` it."""
    folder = tmp_path_factory.mktemp("made")
    return finished(folder / "project", SERVED, files={"loader.py": LOADER})


def rows_of(address: str) -> list[Run]:
    """Return the rows of a store, newest first."""
    client = MlflowClient(address)
    return list(client.search_runs([e.experiment_id for e in client.search_experiments()]))


def experiments(project: Repository) -> list[str]:
    """Return the names of the experiments that have rows."""
    client = project.client
    ids = {run.info.experiment_id for run in project.rows()}
    return sorted(client.get_experiment(number).name for number in ids)


def files(folder: Path) -> set[str]:
    """Return the paths of all files and folders below a folder, without those of git and DVC."""
    found = {path.relative_to(folder) for path in folder.rglob("*")}
    return {f"{path}" for path in found if not {".git", "cache", "tmp"} & {*path.parts}}


def check_loads(project: Repository, run: Run) -> None:
    """Check that a row's model, its files and its data sets are found in this repository."""
    output = run.outputs.model_outputs[0].model_id
    model = project.client.get_logged_model(output)
    assert is_inside(model.artifact_location, project.path)
    assert is_inside(run.info.artifact_uri, project.path)
    loaded = mlflow.pyfunc.load_model(model.artifact_location)
    assert loaded.predict([1, 2]) == ["1\nrate: 1\n"] * 2
    (file,) = (Path(path_of(run.info.artifact_uri), "model.txt"),)
    assert file.read_text() == "1\nrate: 1\n"
    assert "model.txt" in project.artifacts(run)
    for given in run.inputs.dataset_inputs:
        uri = json.loads(given.dataset.source)["uri"]
        assert Path(uri).is_relative_to(project.path)
        assert Path(uri).exists()


def path_of(uri: str) -> str:
    """Return the path in a file address."""
    return unquote(urlsplit(uri).path)


def is_inside(uri: str, folder: Path) -> bool:
    """Whether a file address is below a folder."""
    return Path(path_of(uri)).is_relative_to(folder)


# Projects


def test_project_below_the_root(tmp_path: Path) -> None:
    """A project below git's root has its store in its own folder; both name its experiment."""
    outer = Repository(tmp_path / "outer")
    outer.path.mkdir()
    outer.git("init", "-q", "-b", "main")
    inner = nested(outer, "inner/deep")
    inner.dvc("repro", "-q")
    assert inner.record().status == 0
    (row,) = inner.rows()
    assert row.data.metrics == {"train/loss": 0.25, "a/score": 1, "b/score": 1}
    assert row.data.tags["folder"] == "inner/deep"
    assert row.info.run_name.startswith("deep ")
    assert experiments(inner) == ["outer/inner/deep"]
    assert not (outer.path / "mlflow.db").exists()
    assert inner.record().out == NOTHING


def nested(outer: Repository, folder: str, stages: Any = TWO_EVALUATIONS) -> Repository:
    """Make a DVC project in a folder of a repository, in which nothing has run."""
    inner = Repository(outer.path / folder)
    inner.path.mkdir(parents=True)
    inner.write({"raw.txt": "1\n", "dvc.yaml": json.dumps({"stages": stages})})
    inner.write({"params.yaml": "".join(f"{key}: {value}\n" for key, value in PARAMS.items())})
    inner.dvc("init", "-q", "--subdir")
    outer.commit("A nested project")
    return inner


def test_nested_project(project: Repository) -> None:
    """A nested project has its rows in the main repository's store, in its own experiment."""
    inner = nested(project, "inner")
    inner.dvc("repro", "-q")
    project.record()
    project.record(folder="inner")
    assert not (inner.path / "mlflow.db").exists()
    assert experiments(project) == ["project", "project/inner"]
    outer_row, inner_row = sorted(project.rows(), key=lambda run: "folder" in run.data.tags)
    assert "folder" not in outer_row.data.tags
    assert inner_row.data.tags["folder"] == "inner"
    assert project.record().out == NOTHING
    assert project.record(folder="inner").out == NOTHING


def test_subfolder(project: Repository) -> None:
    """Called in a subfolder, `record` does what it does at the project's root."""
    project.write({"some/folder/file": ""})
    assert "would add" in project.record("--dry-run", folder="some/folder").out
    project.record()
    assert project.record(folder="some/folder").out == NOTHING
    assert files(project.path / "some") == {"folder", "folder/file"}


def test_dvc_yaml_in_subfolders(tmp_path: Path) -> None:
    """A stage of a dvc.yaml in a subfolder has that folder in its name; its inputs may be above."""
    stages = {"prepare": prepare()}
    below = train("../data.txt")
    below["params"] = [{"../params.yaml": ["rate"]}]
    below["cmd"] = below["cmd"].replace(" params.yaml", " ../params.yaml")
    score = evaluate("a")
    score["params"] = [{"../params.yaml": ["a"]}]
    score["cmd"] = score["cmd"].replace(" params.yaml", " ../params.yaml")
    files = {"models/dvc.yaml": json.dumps({"stages": {"train": below, "a": score}})}
    project = repository(tmp_path / "project", stages, files=files)
    project.dvc("repro", "-q", "-R", ".")
    project.commit("The results")
    project.record()
    (row,) = project.rows()
    assert {key for key in row.data.tags if key.startswith("lock.")} == {
        "lock.models/train",
        "lock.models/a",
    }
    assert row.data.metrics == {"models/train/loss": 0.25, "models/a/score": 1}
    assert row.data.params == {"rate": "1", "a": "1"}
    assert row.data.tags["md5.models/model.txt"]
    assert {given.dataset.name for given in row.inputs.dataset_inputs} == {
        "data.txt",
        "models/model.txt",
    }
    assert "models/model.txt" in project.artifacts(row)
    assert row.data.tags["mlflow.source.git.commit"] == project.git("rev-parse", "HEAD")
    assert project.record(folder="models").out == NOTHING


def test_wdir(tmp_path: Path) -> None:
    """A stage's working directory changes where its files are, not what it is called."""
    stage = {**train("../raw.txt"), "wdir": "work"}
    stage["params"] = [{"../params.yaml": ["rate"]}]
    stage["cmd"] = stage["cmd"].replace(" params.yaml", " ../params.yaml")
    stage["meta"] = {"mlflow": {"model": {**MODEL, "path": "model.txt"}}}
    project = repository(tmp_path / "project", {"train": stage}, files={"work/loader.py": LOADER})
    project.dvc("repro", "-q")
    project.record()
    (row,) = project.rows()
    assert row.data.metrics == {"train/loss": 0.25}
    assert row.data.params == {"rate": "1"}
    assert project.artifacts(row) == ["work/curve.csv", "work/model.txt"]
    model = project.client.get_logged_model(row.outputs.model_outputs[0].model_id)
    loaded = mlflow.pyfunc.load_model(model.artifact_location)
    assert loaded.predict([1]) == ["1\nrate: 1\n"]


# Git


def test_worktree(project: Repository, tmp_path: Path) -> None:
    """A result of a git worktree goes to the main repository's store, even one without .dvc/tmp."""
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
    assert tree.record().out == NOTHING
    assert experiments(project) == ["project"]


@pytest.mark.parametrize("name", ["moved/project", "renamed"])
@pytest.mark.parametrize("copied", [False, True], ids=["moved", "copied"])
def test_moved_repository(project: Repository, tmp_path: Path, name: str, copied: bool) -> None:
    """After a repository was moved, renamed or copied, its files load and nothing is doubled."""
    project.record()
    place = tmp_path / name
    place.parent.mkdir(exist_ok=True)
    if copied:
        shutil.copytree(project.path, place, symlinks=True)
        assert project.record().out == NOTHING
        (row,) = project.rows()
        check_loads(project, row)
        shutil.rmtree(project.path)
    else:
        project.path.rename(place)
    moved = Repository(place)
    assert moved.record("--dry-run").out == NOTHING
    assert moved.record().out == NOTHING
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
    """The default experiment may be renamed in MLflow, too."""
    project.record()
    (row,) = project.rows()
    project.client.rename_experiment(row.info.experiment_id, "My experiment")
    assert project.record().out == NOTHING
    project.set({"a": 2})
    project.dvc("repro", "-q")
    assert project.record().out.startswith("My experiment: added")
    assert experiments(project) == ["My experiment"]


def test_without_git(made: Repository, tmp_path: Path) -> None:
    """Without git a project has its rows in its own folder, wherever in it `record` is called."""
    project = made.copy(tmp_path / "project")
    shutil.rmtree(project.path / ".git")
    project.dvc("config", "core.no_scm", "true")
    project.write({"some/folder/file": ""})
    project.record(folder="some/folder")
    (row,) = project.rows()
    assert row.data.metrics == {"train/loss": 0.25, "a/score": 1}
    assert not {key for key in row.data.tags if "git" in key}
    assert row.info.run_name == "rate=1 a=1"
    assert row.data.tags["mlflow.user"]
    assert experiments(project) == ["project"]
    assert files(project.path / "some") == {"folder", "folder/file"}
    assert project.record().out == NOTHING
    check_loads(project, row)


def test_without_commits(tmp_path: Path) -> None:
    """Before the first commit a result is recorded without one; afterwards it is the same row."""
    project = repository(tmp_path / "project", TWO_EVALUATIONS)
    shutil.rmtree(project.path / ".git")
    project.git("init", "-q", "-b", "main")
    project.dvc("repro", "-q")
    project.record()
    (row,) = project.rows()
    assert row.info.run_name == "rate=1 a=1 b=1"
    assert "mlflow.source.git.commit" not in row.data.tags
    project.commit("First")
    assert project.record().out == NOTHING


@pytest.mark.parametrize("name", ["with space", "ümläut"])
def test_path(made: Repository, tmp_path: Path, name: str) -> None:
    """A path may have spaces and letters of any alphabet."""
    project = made.copy(tmp_path / name)
    project.record()
    (row,) = project.rows()
    check_loads(project, row)
    assert project.record().out == NOTHING
    renamed = Repository(project.path.rename(tmp_path / f"{name} 2"))
    assert renamed.record().out == NOTHING
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
    # Another place is not affected.
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/rows.db")
    assert project.record().status == 0
    (row,) = rows_of(f"sqlite:///{tmp_path}/rows.db")
    row = MlflowClient(f"sqlite:///{tmp_path}/rows.db").get_run(row.info.run_id)
    assert Path(path_of(row.info.artifact_uri), "model.txt").is_file()


# Addresses


def test_relative_database(
    project: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A relative path of a database is relative to the main repository, wherever one is."""
    project.git("worktree", "add", "-q", str(tmp_path / "tree"))
    project.write({"some/file": ""})
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///rows.db")
    assert ": would add" in project.record("--dry-run").out
    assert not list(tmp_path.rglob("rows.db"))
    assert ": added" in Repository(tmp_path / "tree").record().out
    # The model is in the main repository only.
    assert ": completed" in project.record(folder="some").out
    assert project.record(folder="some").out == NOTHING
    assert not list(tmp_path.rglob("mlflow.db"))
    assert [*tmp_path.rglob("rows.db")] == [project.path / "rows.db"]
    (row,) = rows_of(f"sqlite:///{project.path}/rows.db")
    assert is_inside(row.info.artifact_uri, project.path / "mlartifacts")
    assert not list(tmp_path.rglob("mlruns"))


def test_server(project: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows go to the server that MLFLOW_TRACKING_URI names, and nothing to the repository."""
    shelf = Repository(project.path.parent / "shelf")
    shelf.path.mkdir()
    with serving(
        shelf, "server", "--backend-store-uri", f"sqlite:///{shelf.path}/rows.db", "--workers", "1"
    ) as address:
        before = files(project.path)
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        said = project.record()
        assert said.error == ""
        assert f"  {address}/#/experiments/1/runs/" in said.out
        assert project.record().out == NOTHING
        (row,) = rows_of(address)
        client = MlflowClient(address)
        row = client.get_run(row.info.run_id)
        assert client.get_experiment(row.info.experiment_id).name == "project"
        model = row.outputs.model_outputs[0].model_id
        mlflow.set_tracking_uri(address)
        loaded = mlflow.pyfunc.load_model(f"models:/{model}")
        assert loaded.predict([1]) == ["1\nrate: 1\n"]
        assert files(project.path) == before


def test_experiment_name(project: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    """MLFLOW_EXPERIMENT_NAME comes first, then `meta.mlflow.experiment`, then the default.

    A result that is known in one experiment is not recorded in another.
    """
    stages = json.loads(json.dumps(SERVED))
    stages["train"]["meta"]["mlflow"]["experiment"] = "declared"
    project.record()
    project.write({"dvc.yaml": json.dumps({"stages": stages})})
    assert project.record().out == NOTHING
    for number, chosen in enumerate(["", "chosen"], start=2):
        project.set({"rate": number})
        project.dvc("repro", "-q")
        monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", chosen)
        project.record()
    assert experiments(project) == ["chosen", "declared", "project"]
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME")
    project.write({"dvc.yaml": json.dumps({"stages": SERVED})})
    assert project.record().out == NOTHING
