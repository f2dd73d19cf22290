"""Scripts that call MLflow: under `run` their run is the row, and else it is their own."""

import shlex
from pathlib import Path
from typing import Any

import pytest
from mlflow.entities import Run

from support.followers import followers
from support.following import following, started
from support.pipelines import Repository, Stages, evaluate, repository, train
from support.waiting import wait

pytestmark = [
    pytest.mark.pipeline,
    pytest.mark.versions,
    pytest.mark.filterwarnings("ignore"),  # warnings from MLflow
]

SCRIPT = """
import os, time
import mlflow
with mlflow.start_run(run_name="training"):
    mlflow.log_param("mine", 1)
    mlflow.log_param("rate", "theirs")
    mlflow.log_metric("score", 0.5, step=3)
    mlflow.log_text("text", "note.txt")
    with mlflow.start_run(nested=True):
        mlflow.log_metric("inner", 1)
    while not os.path.exists("go"):
        time.sleep(0.1)
with mlflow.start_run(run_name="second"):
    mlflow.log_metric("score", 0.7)
open("out.txt", "w").write("1")
"""
ONE = {"cmd": "python script.py", "deps": ["script.py"], "params": ["rate"], "outs": ["out.txt"]}
PREFIXED = {**ONE, "cmd": "dvc-mlflow run python script.py"}
BEHIND = {**ONE, "cmd": "true && dvc-mlflow run python script.py && true"}
LIST = {**ONE, "cmd": ["true", "dvc-mlflow run python script.py", "true"]}
WAYS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "before dvc": (ONE, ["dvc-mlflow", "run", "dvc", "repro"]),
    "before a shell": (ONE, ["dvc-mlflow", "run", "sh", "-c", "dvc repro; true"]),
    "prefix": (PREFIXED, ["dvc", "repro"]),
    "behind a shell": (BEHIND, ["dvc", "repro"]),
    "list": (LIST, ["dvc", "repro"]),
    "both": (PREFIXED, ["dvc-mlflow", "run", "dvc", "repro"]),
    "experiment": (ONE, ["dvc-mlflow", "run", "dvc", "exp", "run"]),
    "copy": (PREFIXED, ["dvc", "exp", "run", "--temp"]),
}


def project_of(path: Path, stages: Stages, script: str = SCRIPT, **more: Any) -> Repository:
    return repository(path, stages, files={"script.py": script}, **more)


def tops(project: Repository) -> list[Run]:
    """Return the rows that are below no other, oldest first."""
    return [run for run in project.rows() if "mlflow.parentRunId" not in run.data.tags]


@pytest.mark.parametrize("way", WAYS)
def test_ways(tmp_path: Path, way: str) -> None:
    """The run that a script opens is the row, while it runs and then; further runs are below it."""
    stage, command = WAYS[way]
    script = SCRIPT.replace('"go"', repr(f"{tmp_path}/go"))
    project = project_of(tmp_path / "project", {"one": stage}, script)
    with started(project, *command) as dvc:
        wait(lambda: [r for r in tops(project) if "script.run_name" in r.data.tags], 60)
        wait(lambda: len(tops(project)) == 1)  # one RUNNING row for one stage
        (begun,) = tops(project)
        assert begun.info.status == "RUNNING"
        assert begun.data.params == {"mine": "1", "rate": "theirs"}
        (tmp_path / "go").touch()
        assert dvc.wait(60) == 0
    assert project.record("--all").status == 0
    (row,) = tops(project)
    assert (row.info.run_id, row.info.status) == (begun.info.run_id, "FINISHED")
    assert row.data.metrics == {"score": 0.5}
    assert row.data.params == {"mine": "1", "rate": "theirs"}
    assert "note.txt" in project.artifacts(row)
    assert row.data.tags["dvc-mlflow.lock.one"]
    assert row.data.tags["script.run_name"] == "training"
    assert row.info.run_name != "training"
    assert row.info.run_name.endswith(row.data.tags["dvc-mlflow.lock.one"][:7])
    below = [run for run in project.rows() if run.info.run_id != row.info.run_id]
    assert {run.data.tags["mlflow.parentRunId"] for run in below} == {row.info.run_id}
    assert sorted(key for run in below for key in run.data.metrics) == ["inner", "score"]


def test_again(tmp_path: Path) -> None:
    """If the result is there already, the script's run stays, and names the row that has it."""
    project = project_of(tmp_path / "project", {"one": ONE})
    project.write({"go": ""})
    for force in ([], ["-f"]):
        project.run("dvc-mlflow", "run", "dvc", "repro", "-q", *force)
        assert project.record().status == 0
    first, *others = [r for r in tops(project) if "dvc-mlflow.lock.one" in r.data.tags]
    assert others == []
    (again,) = [r for r in tops(project) if r.data.tags.get("reproduces") == first.info.run_id]
    assert again.data.metrics == {"score": 0.5}


def test_failed(tmp_path: Path) -> None:
    """If the stage fails, the script's run is the FAILED row."""
    script = 'import mlflow\nwith mlflow.start_run():\n    mlflow.log_metric("m", 1)\n    x'
    project = project_of(tmp_path / "project", {"one": ONE}, script)
    assert project.run("dvc-mlflow", "run", "dvc", "repro", check=False).returncode
    project.record()
    (row,) = wait(lambda: [r for r in project.rows() if r.info.status != "RUNNING"])
    assert (row.info.status, row.data.metrics) == ("FAILED", {"m": 1})
    assert row.data.params == {"rate": "1"}


def test_params_of_its_own(tmp_path: Path) -> None:
    """A script can log a param in its own way at any time: MLflow refuses no value of it."""
    script = """
import time, mlflow
with mlflow.start_run():
    time.sleep(5)
    mlflow.log_param("rate", "1.0")
open("out.txt", "w").write("1")
"""
    project = project_of(tmp_path / "project", {"one": {**ONE, "params": ["rate", "a"]}}, script)
    project.run("dvc-mlflow", "run", "dvc", "repro", "-q")
    assert project.record().status == 0
    (row,) = tops(project)
    assert (row.info.status, row.data.params) == ("FINISHED", {"rate": "1.0", "a": "1"})
    assert row.data.tags["dvc-mlflow.live"] == ""


def test_follower_is_killed(tmp_path: Path) -> None:
    """If the follower is killed, `record` completes the script's run all the same."""
    script = SCRIPT.replace('"rate", "theirs"', '"rate", 1')
    project = project_of(tmp_path / "project", {"one": PREFIXED}, script)
    with started(project, "dvc", "repro") as dvc:
        wait(lambda: [r for r in tops(project) if "script.run_name" in r.data.tags], 60)
        for each in followers(project.path):
            each.kill()
        project.write({"go": ""})
        assert dvc.wait(60) == 0
    assert project.record().status == 0
    rows = [r for r in tops(project) if "dvc-mlflow.lock.one" in r.data.tags]
    assert [row.data.metrics for row in rows] == [{"score": 0.5}]


OTHERS = """
import mlflow
{before}
with mlflow.start_run():
    mlflow.log_metric("mine", 1)
{after}
open("out.txt", "w").write("1")
"""


@pytest.mark.parametrize("named", [True, False])
def test_experiments(tmp_path: Path, named: bool) -> None:
    """A script's run is in the experiment of its row."""
    meta = {"meta": {"mlflow": {"experiment": "flowers"}}} if named else {}
    stages = {
        "train": {**train("raw.txt"), **meta},
        "one": {**ONE, "deps": ["script.py", "model.txt"]},
    }
    script = OTHERS.format(before="", after="import time; time.sleep(2)")
    project = project_of(tmp_path / "project", stages, script)
    project.run("dvc-mlflow", "run", "dvc", "repro", "-q")
    assert project.record("--stages", "train,one").status == 0
    names = {project.client.get_experiment(r.info.experiment_id).name for r in project.rows()}
    assert names == {"flowers" if named else "project"}


def test_chosen_experiment(tmp_path: Path) -> None:
    """A script that has chosen another experiment has its run there, below the row."""
    before = 'mlflow.set_experiment("theirs")'
    script = OTHERS.format(before=before, after="import time; time.sleep(3)")
    project = project_of(tmp_path / "project", {"one": ONE}, script)
    project.run("dvc-mlflow", "run", "dvc", "repro", "-q")
    assert project.record().status == 0
    (row,) = tops(project)
    (below,) = [run for run in project.rows() if run.info.run_id != row.info.run_id]
    assert below.data.tags["mlflow.parentRunId"] == row.info.run_id
    assert below.data.metrics == {"mine": 1}


def test_new_store(tmp_path: Path) -> None:
    """Without a store, `run` makes it first: the script's run is in it, and so are its files."""
    script = 'import mlflow\nmlflow.log_text("text", "note.txt")\nopen("out.txt", "w").write("1")'
    project = project_of(tmp_path / "project", {"one": ONE}, script)
    project.remove_store()
    project.run("dvc-mlflow", "run", "dvc", "repro", "-q")
    assert project.record().status == 0
    files = {path.relative_to(project.path).parts[0] for path in project.path.rglob("note.txt")}
    assert files == {"mlartifacts"}


@pytest.mark.rest
def test_autolog(tmp_path: Path) -> None:
    """What autolog and `log_model` log is in the row."""
    script = """
import mlflow
mlflow.sklearn.autolog()
from sklearn.linear_model import LinearRegression
with mlflow.start_run():
    model = LinearRegression().fit([[0.0], [1.0]], [0.0, 1.0])
    mlflow.sklearn.log_model(model, name="again", serialization_format="pickle")
open("out.txt", "w").write("1")
"""
    project = project_of(tmp_path / "project", {"one": ONE}, script)
    project.run("dvc-mlflow", "run", "dvc", "repro", "-q")
    assert project.record().status == 0
    (row,) = tops(project)
    assert row.data.params["fit_intercept"] == "True"
    assert row.data.params["rate"] == "1"
    assert len(row.outputs.model_outputs) == 2


def test_plain_dvc(tmp_path: Path) -> None:
    """Under plain `dvc` a script's run stays its own, and one line recommends `run`."""
    script = OTHERS.format(before="", after="")
    project = project_of(tmp_path / "project", {"one": ONE, "a": evaluate("a", "out.txt")}, script)
    with following(project) as follower:
        for rate in (1, 2):
            project.set({"rate": rate})
            project.run("dvc", "repro", "-q", "-f")
        assert project.record().status == 0
    line = "one: its script has opened runs in MLflow itself; under `dvc-mlflow run dvc repro` they"
    assert sum(line in each for each in follower.lines) == 1
    rows = [run for run in project.rows() if "dvc-mlflow.row" in run.data.tags]
    assert {run.data.metrics.get("mine") for run in rows} == {None}


def test_two_at_once(tmp_path: Path) -> None:
    """Where two `dvc` run below one `run`, nobody knows whose a run is: it stays its own."""
    script = OTHERS.format(before="import sys, time", after='time.sleep(3); name = "out.txt"')
    stages: Stages = {
        name: {
            "cmd": f"python script.py && mv out.txt {name}",
            "deps": ["script.py"],
            "params": [{"../params.yaml": ["rate"]}],
            "outs": [name],
            "wdir": name,
        }
        for name in ("x", "y")
    }
    files = {f"{name}/script.py": script for name in stages}
    project = repository(tmp_path / "project", stages, files=files)
    both = " & ".join(f"dvc repro -q {name}" for name in stages)
    project.run("dvc-mlflow", "run", "sh", "-c", f"{both}; wait")
    assert project.record().status == 0
    rows = [run for run in project.rows() if "dvc-mlflow.row" in run.data.tags]
    assert len(rows) == 2
    assert not any("mine" in run.data.metrics for run in rows)
    assert len(tops(project)) == 4


def test_tool_below_run(tmp_path: Path) -> None:
    """What `run` sets is for scripts: the tool's own commands below it record where they would."""
    stages = {
        "x": {**train("raw.txt"), "meta": {"mlflow": {"experiment": "first"}}},
        "y": {**evaluate("a", "raw.txt"), "meta": {"mlflow": {"experiment": "second"}}},
    }
    project = repository(tmp_path / "project", stages)
    text = "dvc repro -q; dvc-mlflow record; dvc-mlflow run dvc-mlflow record"
    project.run("dvc-mlflow", "run", "sh", "-c", text)
    names = {project.client.get_experiment(r.info.experiment_id).name for r in project.rows()}
    assert names == {"first", "second"}
    project.remove_store()
    project.run(
        "sh", "-c", f"dvc-mlflow run sh -c {shlex.quote(text)}", MLFLOW_EXPERIMENT_NAME="own"
    )
    project.record()
    assert len(project.rows()) >= 2
