"""Rows go to the repository's own store, wherever its DVC project is and `record` is called."""

import json
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow import MlflowClient

from support.pipelines import (
    LOADER,
    MODEL,
    PARAMS,
    SERVED,
    TWO_EVALUATIONS,
    Repository,
    evaluate,
    prepare,
    repository,
    served,
    train,
)
from support.servers import serving
from support.stores import NOTHING, experiments, files, is_inside, rows_of

pytestmark = [
    pytest.mark.pipeline,
    pytest.mark.versions,
    pytest.mark.filterwarnings("ignore"),  # warnings from MLflow
]


@pytest.fixture(scope="session")
def made() -> Repository:
    """A pipeline with a model that has run once, for all tests: `copy` it."""
    return served()


def test_project_below_the_root(tmp_path: Path) -> None:
    """A project below git's root has its own store, and an experiment named after both folders."""
    outer = Repository(tmp_path / "outer")
    outer.path.mkdir()
    outer.git("init", "-q", "-b", "main")
    inner = nested(outer, "inner/deep")
    inner.dvc("repro", "-q")
    assert inner.record().status == 0
    (row,) = inner.rows()
    assert row.data.metrics == {"train/loss": 0.25, "a/score": 1, "b/score": 1}
    assert row.data.tags["folder"] == "inner/deep"
    assert row.info.run_name == row.data.tags["dvc-mlflow.found-by"][:7]
    assert experiments(inner) == ["outer/inner/deep"]
    assert not (outer.path / "mlflow.db").exists()
    assert inner.record().out.startswith(NOTHING)


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
    assert project.record().out.startswith(NOTHING)
    assert project.record(folder="inner").out.startswith(NOTHING)


def test_subfolder(project: Repository) -> None:
    """Called in a subfolder, `record` does what it does at the project's root."""
    project.write({"some/folder/file": ""})
    assert "would add" in project.record("--dry-run", folder="some/folder").out
    project.record()
    assert project.record(folder="some/folder").out.startswith(NOTHING)
    assert files(project.path / "some") == {"folder", "folder/file"}


def test_dvc_yaml_in_subfolders(tmp_path: Path) -> None:
    """The name of a stage in a subfolder has the folder in it; its inputs may be above it."""
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
    assert {key for key in row.data.tags if key.startswith("dvc-mlflow.lock.")} == {
        "dvc-mlflow.lock.models/train",
        "dvc-mlflow.lock.models/a",
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
    assert project.record(folder="models").out.startswith(NOTHING)


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


def test_relative_database(
    project: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A relative database path is relative to the main repository, wherever `record` is called."""
    project.remove_store()
    project.git("worktree", "add", "-q", str(tmp_path / "tree"))
    project.write({"some/file": ""})
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///rows.db")
    assert ": would add" in project.record("--dry-run").out
    assert not list(tmp_path.rglob("rows.db"))
    assert ": added" in Repository(tmp_path / "tree").record().out
    # The model is in the main repository only.
    assert ": completed" in project.record(folder="some").out
    assert project.record(folder="some").out.startswith(NOTHING)
    assert not list(tmp_path.rglob("mlflow.db"))
    assert [*tmp_path.rglob("rows.db")] == [project.path / "rows.db"]
    (row,) = rows_of(f"sqlite:///{project.path}/rows.db")
    assert is_inside(row.info.artifact_uri, project.path / "mlartifacts")
    assert not list(tmp_path.rglob("mlruns"))


@pytest.mark.rest
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
        assert project.record().out.startswith(NOTHING)
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
    assert project.record().out.startswith(NOTHING)
    for number, chosen in enumerate(["", "chosen"], start=2):
        project.set({"rate": number})
        project.dvc("repro", "-q")
        monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", chosen)
        project.record()
    assert experiments(project) == ["chosen", "declared", "project"]
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME")
    project.write({"dvc.yaml": json.dumps({"stages": SERVED})})
    assert project.record().out.startswith(NOTHING)
