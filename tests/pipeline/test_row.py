"""One `dvc repro` records one complete row, which others can make from git or restore."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from mlflow.entities import Run
from ruamel.yaml import YAML

from dvc_mlflow.pipeline.tags import MD5, tagged
from support.clone import Clone
from support.pipelines import Repository
from support.promoting import restored

pytestmark = [
    pytest.mark.pipeline,
    pytest.mark.filterwarnings("ignore"),  # MLflow's client warns in the test process
]


@pytest.fixture(scope="module")
def project(reproduced: Clone, tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """A copy, with the row that `dvc repro` has made in it, and with its results committed."""
    path = tmp_path_factory.mktemp("row") / "clone"
    copied = Repository(reproduced.copy_whole(path).path)
    assert copied.record().error == ""  # it corrects the paths
    return copied


@pytest.fixture(scope="module")
def row(project: Repository) -> Run:
    """The only row that `dvc repro` has made."""
    (row,) = project.rows()
    return row


def test_row(project: Repository, row: Run) -> None:
    """One row has all params, metrics, files, md5s and data sets of the four stages."""
    stages: dict[str, Any] = YAML(typ="safe").load(project.lock)["stages"]
    sections = {k: v for s in stages.values() for k, v in s["params"]["params.yaml"].items()}
    params = {f"{s}.{key}": str(v) for s, values in sections.items() for key, v in values.items()}
    params["model.cell_noise"] = "0"  # whole floats are shown as ints
    assert len(params) > 25
    assert row.data.params == params
    outs = {out["path"]: out["md5"] for stage in stages.values() for out in stage["outs"]}
    tags = row.data.tags
    assert tagged(tags, MD5) == outs
    inputs = {
        (i.dataset.name, i.tags[0].value): i.dataset.digest for i in row.inputs.dataset_inputs
    }
    data = [("train.npz", "train"), ("model.keras", "evaluate"), ("test.npz", "evaluate")]
    assert inputs == {(f"data/{name}", stage): outs[f"data/{name}"] for name, stage in data}
    small = ["confusion_matrix.html", "metrics.json", "model.keras", "model_summary.txt"]
    small += ["predictions.csv", "training.csv"]  # the model is small enough, too
    assert project.artifacts(row) == [f"data/{name}" for name in small]
    assert row.info.status == "FINISHED"
    assert project.client.get_experiment(row.info.experiment_id).name == "vanilla-lstm"
    assert tags["mlflow.source.git.commit"] == project.git("rev-parse", "HEAD")


def test_metrics(project: Repository, row: Run) -> None:
    """The row's metrics are those in data/metrics.json, its curves those in data/training.csv."""
    result = json.loads((project.path / "data/metrics.json").read_text())
    final = {f"test/{key}": value for key, value in result.items()}
    assert final["test/n_samples"] == 20
    with (project.path / "data/training.csv").open() as file:
        epochs = [*csv.DictReader(file)]
    names = {"n_steps", "loss", "accuracy", "val_loss", "val_accuracy"}
    for name in names:
        history = project.client.get_metric_history(row.info.run_id, f"train/{name}")
        expected = [(int(line["epoch"]), float(line[name])) for line in epochs]
        assert [(point.step, point.value) for point in history] == expected
    assert len(epochs) == 3
    curves = {f"train/{name}": float(epochs[-1][name]) for name in names}
    assert row.data.metrics == {**final, **curves}


def test_model(project: Repository, row: Run) -> None:
    """The row's model has a signature and the code that it needs, and is in the repository."""
    (output,) = row.outputs.model_outputs
    model = project.client.get_logged_model(output.model_id)
    assert model.source_run_id == row.info.run_id
    folder = Path(model.artifact_location.removeprefix("file://"))
    assert folder.is_relative_to(project.path / "mlartifacts")
    assert (folder / "data/model.keras").read_bytes() == (
        project.path / "data/model.keras"
    ).read_bytes()
    assert (folder / "code/vanilla_lstm/serving.py").is_file()
    assert "signature:" in (folder / "MLmodel").read_text()


def test_restored(project: Repository, row: Run) -> None:
    """The row is restored in a separate folder, where everything is up to date."""
    folder = restored(project, row)
    assert "up to date" in folder.dvc("repro").stdout
    assert (folder.path / "params.yaml").read_text() == (project.path / "params.yaml").read_text()
