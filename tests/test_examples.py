"""The example in examples/ gives the same rows while it runs as after the fact."""

import re
from pathlib import Path
from typing import Any

import pytest
from mlflow import pyfunc

from support.clone import EXAMPLE, add_prefix, plain_example
from support.pipelines import Repository
from support.processes import end_followers

README = (EXAMPLE / "README.md").read_text()


@pytest.mark.pipeline
@pytest.mark.rest
@pytest.mark.filterwarnings("ignore")  # MLflow's client warns in the test process
def test_example(tmp_path: Path) -> None:
    """`record` makes the row of the live run from git and DVC, and changes no file.

    Neither the scripts nor dvc.yaml mention MLflow. With README's `artifacts`, it loads the model
    without the project's code.
    """
    for path in (EXAMPLE / "dvc.yaml", *EXAMPLE.glob("scripts/*.py")):
        assert "mlflow" not in path.read_text().lower()
    live = Repository(plain_example(tmp_path / "live").path)
    add_prefix(live)
    live.commit("My pipeline, recorded while it runs")
    live.dvc("repro")
    live.record()
    end_followers(live.path)  # what one writes would be copied half
    live.commit("The results")
    project = live.copy(tmp_path / "project")  # without rows
    said = project.record()
    assert (said.status, said.error) == (0, "")
    assert project.table() == live.table()
    assert project.git("status", "--porcelain") == ""
    assert "up to date" in project.dvc("status").stdout
    (section,) = re.findall(r"^```yaml\n(.*?)^```", README, re.M | re.S)
    with (project.path / "dvc.yaml").open("a") as file:
        file.write(section)
    project.commit("How to load the model")
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
