"""The example in examples/ gives the same rows with adoption.diff as without it."""

import re
import shutil
from contextlib import chdir, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from mlflow import pyfunc
from ruamel.yaml import YAML

from clone import Clone
from dvc_mlflow.__main__ import main
from example import EXAMPLE, copy_example, plain_example
from pipelines import Repository

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
def plain(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """A repository in which the pipeline has run without the diff: `copy` it."""
    project = Repository(plain_example(tmp_path_factory.mktemp("plain") / "project").path)
    project.commit("My pipeline")
    project.dvc("repro")
    project.commit("The results")
    return project


@pytest.fixture(scope="module")
def adopted(plain: Repository, tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """That repository with the diff, in which the pipeline has run again: `copytree` it."""
    project = plain.copy(tmp_path_factory.mktemp("adopted") / "project")
    project.git("apply", "adoption.diff")
    project.commit("Record the pipeline in MLflow")
    project.dvc("repro")
    project.commit("The results")
    return project


@pytest.fixture
def project(adopted: Repository, tmp_path: Path) -> Repository:
    """A copy of the adopted pipeline with its store."""
    return Repository(Path(shutil.copytree(adopted.path, tmp_path / "project", symlinks=True)))


def test_diff(plain: Repository, tmp_path: Path) -> None:
    """The diff is what `init` writes; README shows its commands, and no script names MLflow."""
    project = plain.copy(tmp_path / "project")
    assert project.tool("init", "--yes").status == 0
    diff = (EXAMPLE / "adoption.diff").read_text()
    assert project.git("diff", "--", ":!dvc.lock") == diff.strip()
    commands = [line for line in re.findall(r"^[-+].*", diff, re.M) if "cmd:" in line]
    assert len(commands) == 4
    assert "\n".join(commands) in README
    for script in (EXAMPLE / "scripts").iterdir():
        assert "mlflow" not in script.read_text()


def test_record(plain: Repository, adopted: Repository, tmp_path: Path) -> None:
    """`record` makes the same row from the plain pipeline, and changes no file."""
    assert not (plain.path / "mlflow.db").exists()
    project = plain.copy(tmp_path / "project")
    said = project.record()
    assert (said.status, said.error) == (0, "")
    assert project.table() == adopted.table()
    assert project.git("status", "--porcelain").split() == ["??", "mlartifacts/", "??", "mlflow.db"]
    assert "up to date" in project.dvc("status").stdout


def test_row(plain: Repository, adopted: Repository) -> None:
    """A row has all params, the curve, the scores of both splits and the folders of data."""
    assert adopted.record().out.startswith("nothing to do")
    outs = locked(adopted)
    assert outs == locked(plain)  # the tool changes no byte
    (run,) = adopted.rows()
    assert run.info.status == "FINISHED"
    given = YAML(typ="safe").load(adopted.path / "params.yaml")
    assert run.data.params == {f"{s}.{key}": f"{given[s][key]}" for s in given for key in given[s]}
    curve = adopted.client.get_metric_history(run.info.run_id, "train/loss")
    assert [point.step for point in curve] == [*range(30)]
    scores = YAML(typ="safe").load(adopted.path / "reports" / "metrics.json")
    assert run.data.metrics == {
        "train/loss": curve[-1].value,
        **{f"evaluate/{split}/{key}": v for split in scores for key, v in scores[split].items()},
    }
    tags = {key: md5 for key, md5 in run.data.tags.items() if key.startswith("md5.")}
    assert tags == {f"md5.{path}": md5 for path, md5 in outs.items()}
    inputs = {i.dataset.name: i.dataset.digest for i in run.inputs.dataset_inputs}
    assert inputs == {path: outs[path] for path in (*FOLDERS, "data/model.pkl")}
    assert adopted.artifacts(run) == sorted(path for path in outs if path not in FOLDERS)


@pytest.mark.rest
def test_experiment(project: Repository) -> None:
    """An experiment adds a row, and `record` finds nothing more to add."""
    project.dvc("exp", "run", "-S", "train.passes=60")
    _, run = project.rows()
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "passes=60"
    assert run.data.metrics["train/loss"] < 0.4
    assert "evaluate/test/accuracy" in run.data.metrics
    assert run.data.tags["mlflow.source.git.dirty"] == "false"
    for revision in ("HEAD", run.data.tags["dvc.exp_name"]):
        assert project.record("--rev", revision).out.startswith("nothing to do")


def test_restore(project: Repository) -> None:
    """A row is restored in a separate folder, with its folders of data, and nothing runs."""
    (run,) = project.rows()
    with chdir(project.path), redirect_stdout(StringIO()) as out:
        assert main(["restore", run.info.run_id]) == 0
    folder = Clone(project.path / out.getvalue().splitlines()[-1].partition(":")[0])
    assert "up to date" in folder.dvc("status").stdout
    assert locked(folder) == locked(project)
    assert len(project.rows()) == 1
    assert project.git("status", "--porcelain") == ""


def test_served(adopted: Repository, tmp_path: Path) -> None:
    """With README's `artifacts`, MLflow loads the model without the project's code."""
    project = adopted.copy(tmp_path / "project")  # without rows
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


@pytest.mark.rest
def test_in_place(tmp_path: Path) -> None:
    """In a folder of another project, as here, the example records into that project's store."""
    root = Repository(tmp_path / "root")
    copy_example(root.path / "examples" / "digits")
    root.git("init", "-q", "-b", "main")
    root.dvc("init", "-q")
    root.commit("Two projects")
    example = Clone(root.path / "examples" / "digits")
    example.dvc("exp", "run", "--temp", "-S", "train.passes=3")
    (run,) = root.rows()
    assert run.info.run_name == "digits passes=3"
    assert "evaluate/test/loss" in run.data.metrics
    assert root.client.get_experiment(run.info.experiment_id).name == "root/examples/digits"
    assert not (example.path / "mlflow.db").exists()
