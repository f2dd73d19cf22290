"""A pipeline that `dvc-mlflow init` has edited runs as before, and records its runs."""

from importlib.util import find_spec
from pathlib import Path

import pytest

from init_projects import changed_lines, command, one
from pipelines import Repository, repository

pytestmark = [
    pytest.mark.pipeline,
    pytest.mark.filterwarnings("ignore"),  # warnings from DVC and MLflow
]


def adopted(project: Repository, at_most: int = 3) -> None:
    """Run `init`, and check that it changes at most so many lines of dvc.yaml."""
    project.commit("Somebody's pipeline")
    said = project.tool("init", "--yes")
    assert (said.status, said.error) == (0, "")
    assert 0 < len(changed_lines(project, "dvc.yaml")) <= at_most


LOOPS = """\
stages:
  prepare:
    foreach: [one, two]
    do:
      cmd: sh -c 'echo ${item} > ${item}.txt'
      outs: ["${item}.txt"]
  train:
    matrix: {model: [small, large], data: [one, two]}
    cmd: sh train.sh ${item.model} ${item.data}
    deps: ["${item.data}.txt", train.sh]
    outs: ["${item.model}-${item.data}.txt"]
    metrics: ["${item.model}-${item.data}.json": {cache: false}]
  compare:
    foreach: {small: {goal: 1}, large: {goal: 2}}
    do:
      cmd: cat ${key}-*.txt > /dev/null && echo '{"goal":' ${item.goal}'}' > ${key}.json
      deps: ["${key}-one.txt", "${key}-two.txt"]
      metrics: ["${key}.json": {cache: false}]
"""


def test_matrix_and_foreach(tmp_path: Path) -> None:
    """Items of a matrix and a foreach over models and data have rows after `dvc repro`."""
    script = """cat $2.txt > $1-$2.txt; echo "{\\"size\\": $(wc -c < $2.txt)}" > $1-$2.json"""
    files = {"dvc.yaml": LOOPS, "train.sh": script}
    project = repository(tmp_path / "project", {}, files=files)
    adopted(project, 2)
    assert command(project) == "dvc-mlflow run sh train.sh ${item.model} ${item.data}"
    project.dvc("repro", "-q")
    found = [(row.data.params, row.data.metrics) for row in project.rows()]
    assert len(found) == 6
    assert {p["item.model"] + p["item.data"] for p, _ in found if "item.model" in p} == {
        "smallone",
        "smalltwo",
        "largeone",
        "largetwo",
    }
    assert "nothing to do" in project.record().out


def test_shell(tmp_path: Path) -> None:
    """A shell command with `cd`, pipes, quotes and variables runs as before."""
    shell = """cd src && for a in 1 2; do echo "{\\"a\\": $a}"; done | tail -1 > '../m.json'"""
    text = (
        f"stages:\n  shell:\n    cmd: |\n      {shell}\n    metrics: [m.json: {{cache: false}}]\n"
    )
    project = repository(tmp_path / "project", {}, files={"dvc.yaml": text, "src/keep": ""})
    adopted(project, 1)
    project.dvc("repro", "-q")
    (row,) = project.rows()
    assert row.data.metrics == {"shell/a": 2}


PLAIN = """
import mlflow

with mlflow.start_run():
    mlflow.log_param("alpha", 0.5)
    mlflow.log_metric("plain", 3)
open("score.json", "w").write("1")
"""

LIVE = """
from dvclive import Live

with Live(save_dvc_exp=False) as live:
    for step in range(3):
        live.log_metric("plain", step)
        live.next_step()
"""


@pytest.mark.rest
def test_plain_mlflow(tmp_path: Path) -> None:
    """What an unchanged script logs to MLflow is in its stage's row."""
    stages = {"train": one({"cmd": "python train.py", "deps": ["train.py"]})}
    project = repository(tmp_path / "project", stages, files={"train.py": PLAIN})
    adopted(project, 1)
    assert command(project) == "dvc-mlflow run python train.py"
    project.dvc("repro", "-q")
    (row,) = project.rows()
    assert row.data.metrics["plain"] == 3
    assert row.data.params["alpha"] == "0.5"
    assert row.data.tags["lock.train"]


@pytest.mark.skipif(not find_spec("dvclive"), reason="DVCLive is not installed")
def test_dvclive(tmp_path: Path) -> None:
    """The curve that DVCLive writes is in the row."""
    more = {"plots": [{"dvclive/plots": {"cache": False}}], "deps": ["train.py"]}
    metrics = [{"dvclive/metrics.json": {"cache": False}}]
    stages = {"train": {"cmd": "python train.py", "metrics": metrics, **more}}
    project = repository(tmp_path / "project", stages, files={"train.py": LIVE})
    adopted(project, 1)
    project.dvc("repro", "-q")
    (row,) = project.rows()
    history = project.client.get_metric_history(row.info.run_id, "train/plain")
    assert [point.value for point in history] == [0, 1, 2]
