"""The example in examples/ gives the same rows while it runs as after the fact."""

import re
from pathlib import Path
from typing import Any

import pytest
from mlflow import pyfunc
from ruamel.yaml import YAML

from support.clone import Clone
from support.example import EXAMPLE, add_prefix, plain_example
from support.followers import end_followers
from support.pipelines import Repository

README = (EXAMPLE / "README.md").read_text()
FOLDERS = ("data/train", "data/validation", "data/test")

pytestmark = [
    pytest.mark.pipeline,
    pytest.mark.filterwarnings("ignore"),  # MLflow's client warns in the test process
]


def locked(project: Clone) -> dict[str, str]:
    """Return the md5 of every output in dvc.lock."""
    stages = YAML(typ="safe").load(project.lock)["stages"].values()
    return {out["path"]: out["md5"] for stage in stages for out in stage["outs"]}


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """A repository in which the pipeline has run with the prefix: `copy` or `copy_whole` it."""
    project = Repository(plain_example(tmp_path_factory.mktemp("live") / "project").path)
    add_prefix(project)
    project.commit("My pipeline, recorded while it runs")
    project.dvc("repro")
    project.record()
    end_followers(project.path)  # what one writes would be copied half
    project.commit("The results")
    return project


@pytest.fixture
def project(live: Repository, tmp_path: Path) -> Repository:
    """A copy of the recorded pipeline with its store."""
    return live.copy_whole(tmp_path / "project")


def test_plain() -> None:
    """Neither the scripts nor dvc.yaml mention MLflow."""
    for file in (EXAMPLE / "dvc.yaml", *EXAMPLE.glob("scripts/*.py")):
        assert "mlflow" not in file.read_text().lower()


def test_record(live: Repository, tmp_path: Path) -> None:
    """`record` makes the same row from git and DVC, and changes no file."""
    project = live.copy(tmp_path / "project")  # without rows
    said = project.record()
    assert (said.status, said.error) == (0, "")
    assert project.table() == live.table()
    assert project.git("status", "--porcelain") == ""
    assert "up to date" in project.dvc("status").stdout


def test_row(live: Repository) -> None:
    """A row has all params, the curve, the scores of both splits and the folders of data."""
    assert live.record().out.startswith("nothing to do")
    outs = locked(live)
    (run,) = live.rows()
    assert run.info.status == "FINISHED"
    given = YAML(typ="safe").load(live.path / "params.yaml")
    assert run.data.params == {f"{s}.{key}": f"{given[s][key]}" for s in given for key in given[s]}
    curve = live.client.get_metric_history(run.info.run_id, "train/loss")
    assert [point.step for point in curve] == [*range(30)]
    scores = YAML(typ="safe").load(live.path / "reports" / "metrics.json")
    assert run.data.metrics == {
        "train/loss": curve[-1].value,
        **{f"evaluate/{split}/{key}": v for split in scores for key, v in scores[split].items()},
    }
    tags = {key: md5 for key, md5 in run.data.tags.items() if key.startswith("md5.")}
    assert tags == {f"md5.{path}": md5 for path, md5 in outs.items()}
    inputs = {i.dataset.name: i.dataset.digest for i in run.inputs.dataset_inputs}
    assert inputs == {path: outs[path] for path in (*FOLDERS, "data/model.pkl")}
    assert live.artifacts(run) == sorted(path for path in outs if path not in FOLDERS)


@pytest.mark.rest
def test_experiment(project: Repository) -> None:
    """An experiment adds a row, and `record` finds nothing more to add."""
    project.dvc("exp", "run", "-S", "train.passes=60")
    project.record()
    _, run = project.rows()
    assert run.info.status == "FINISHED"
    digits = run.data.tags["dvc-mlflow.lock.evaluate"][:7]
    assert run.info.run_name == f"{digits} passes=60"
    assert run.data.metrics["train/loss"] < 0.4
    assert "evaluate/test/accuracy" in run.data.metrics
    for revision in ("HEAD", run.data.tags["dvc.exp_name"]):
        assert project.record("--rev", revision).out.startswith("nothing to do")


def test_restore(project: Repository) -> None:
    """A row is restored in a separate folder, with its folders of data, and nothing runs."""
    (run,) = project.rows()
    said = project.tool("restore", run.info.run_id)
    assert said.status == 0
    folder = Clone(project.path / said.out.splitlines()[-1].partition(":")[0])
    assert "up to date" in folder.dvc("status").stdout
    assert locked(folder) == locked(project)
    assert len(project.rows()) == 1
    assert project.git("status", "--porcelain") == ""


def test_served(live: Repository, tmp_path: Path) -> None:
    """With README's `artifacts`, MLflow loads the model without the project's code."""
    project = live.copy(tmp_path / "project")  # without rows
    (section,) = re.findall(r"^```yaml\n(.*?)^```", README, re.M | re.S)
    with (project.path / "dvc.yaml").open("a") as file:
        file.write(section)
    assert project.record().error == ""
    (run,) = project.rows()
    model = project.client.get_logged_model(run.outputs.model_outputs[0].model_id)
    images = (project.path / "data" / "test" / "images.csv").read_text().splitlines()
    labels = (project.path / "data" / "test" / "labels.csv").read_text().split()
    answers: Any = pyfunc.load_model(model.artifact_location).predict(
        [[float(value) for value in image.split(",")] for image in images]
    )
    right = sum(int(label) == answer for label, answer in zip(labels, answers, strict=True))
    assert right / len(labels) == run.data.metrics["evaluate/test/accuracy"]
