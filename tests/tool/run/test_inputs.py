"""Inputs that change while a stage runs: it ends as it would, and its result has no row."""

import shlex
import time
from pathlib import Path
from typing import Any

import pytest
from mlflow.entities import Run

from support.following import Follower, following, started
from support.pipelines import Repository, evaluate, last, prepare, repository, train
from support.waiting import wait

pytestmark = [
    pytest.mark.pipeline,
    pytest.mark.versions,
    pytest.mark.filterwarnings("ignore"),  # warnings from MLflow
]

GATE = "touch began; sleep 1; until test -e go; do sleep 0.1; done; "


def gated(stage: dict[str, Any]) -> dict[str, Any]:
    """Return a stage that waits for a file `go`."""
    return {**stage, "cmd": f"{GATE}{stage['cmd']}"}


def pipeline(path: Path, **more: Any) -> Repository:
    """A pipeline whose training waits."""
    fit = {**gated(train()), "deps": ["data.txt", "code", "table.txt"]}
    stages = {"prepare": prepare(), "train": fit, "a": evaluate("a")}
    files = {"code/train.sh": "1\n", "code/more.sh": "1\n", "other.txt": "1\n", "table.txt": "1\n"}
    return repository(path, {**stages, **more}, files=files)


def change(project: Repository, what: str) -> None:
    """Change something while the stage runs."""
    if what == "param":
        project.set({"rate": 5})
    elif what == "other param":
        project.set({"b": 5})
    elif what == "dep":
        project.write({"table.txt": "2\n"})
    elif what == "made":
        project.write({"data.txt": "2\n"})
    elif what == "other file":
        project.write({"other.txt": "2\n"})
    elif what == "comment":
        project.write({"code/train.sh": "1\n# a comment\n"})
    elif what == "new file":
        project.write({"code/new.sh": "1\n"})
    elif what == "touch":
        (project.path / "data.txt").touch()
        (project.path / "code/train.sh").touch()
    elif what == "same bytes":
        project.write({"data.txt": "2\n"})
        project.write({"data.txt": "1\n", "code/train.sh": "1\n"})
    elif what == "caches":
        project.write({"code/__pycache__/train.pyc": "1", "code/.cache/x": "1", "code/a.pyc": "1"})


def ran(project: Repository, follower: Follower, what: str) -> Run:
    """Run the pipeline, change something meanwhile, and return the row of the training."""
    with started(project, "dvc", "repro") as dvc:
        wait(lambda: (project.path / "began").exists() and project.rows())
        wait(lambda: "rate" in last(project).data.params)
        change(project, what)
        project.write({"go": ""})
        assert dvc.wait(60) == 0  # nothing is in its way
    wait(lambda: last(project).info.status != "RUNNING")
    return last(project)


CHANGED = {"param": "params.yaml", "dep": "table.txt", "comment": "code", "new file": "code"}


@pytest.mark.parametrize("what", CHANGED)
def test_changed(tmp_path: Path, what: str) -> None:
    """The row is FAILED and names the file; no clone records the result until it is made again."""
    project = pipeline(tmp_path / "project")
    with following(project) as follower:
        row = ran(project, follower, what)
        assert row.info.status == "FAILED"
        why = f"{CHANGED[what]} changed while the stage ran"
        assert why in row.data.tags["mlflow.note.content"]
        assert not any(key.startswith("dvc-mlflow.lock") for key in row.data.tags)
        follower.wait_for(f"train is FAILED: row {row.info.run_name!r}; {why}; `dvc-mlflow run dvc")
        refused(project)
    project.commit("The result")
    refused(project, "--all")
    clone = project.copy(tmp_path / "clone" / "project")
    uri = f"sqlite:///{project.path}/mlflow.db"
    said = clone.tool("record", MLFLOW_TRACKING_URI=uri)
    assert (said.status, said.out) == (1, "")
    assert "`dvc-mlflow run dvc repro -f train` makes it again" in said.error
    with following(project):
        project.run("dvc", "repro", "-q", "-f", "train")
        wait(lambda: last(project).info.status == "FINISHED")
        project.run("dvc", "repro", "-q")
        said = project.record()
        assert (said.status, said.error) == (0, "")
    assert [r.info.status for r in project.rows()] == ["FAILED", "FINISHED"]
    assert last(project).data.metrics == {"train/loss": 0.25, "a/score": 1}
    said = clone.tool("record", MLFLOW_TRACKING_URI=uri)
    assert said.status == 0


def test_made_by_another_stage(tmp_path: Path) -> None:
    """If it is what another stage has made, dvc.lock contradicts itself, and that is said, too."""
    project = pipeline(tmp_path / "project")
    with following(project) as follower:
        assert ran(project, follower, "made").info.status == "FAILED"
        refused(project)
        project.run("dvc", "repro", "-q")
        wait(lambda: last(project).info.status == "FINISHED")
        assert project.record().status == 0


def refused(project: Repository, *words: str) -> None:
    """Assert that `record` leaves the result out, and says what to do."""
    before = project.table()
    said = project.record(*words)
    assert said.status == 1
    (line,) = [line for line in said.error.splitlines() if "changed while it ran" in line]
    assert line.startswith("dvc-mlflow: the result of train is not recorded, as ")
    assert line.endswith("; `dvc-mlflow run dvc repro -f train` makes it again")
    assert project.table() == before


@pytest.mark.parametrize("what", ["other param", "other file", "touch", "same bytes", "caches"])
def test_not_changed(tmp_path: Path, what: str) -> None:
    """The same bytes, what no stage reads, and what code leaves beside itself are no alarm."""
    project = pipeline(tmp_path / "project")
    with following(project) as follower:
        row = ran(project, follower, what)
        assert row.info.status == "FINISHED", row.data.tags.get("mlflow.note.content")
        assert project.record().status == 0
    assert last(project).data.metrics == {"train/loss": 0.25, "a/score": 1}


def test_before_the_recorded_stages(tmp_path: Path) -> None:
    """If it is a stage that is not recorded itself, the rows of what is made from it wait."""
    stages = {"prepare": gated(prepare()), "train": train(), "a": evaluate("a")}
    project = repository(tmp_path / "project", stages)
    with following(project) as follower, started(project, "dvc", "repro") as dvc:
        wait(lambda: (project.path / "began").exists() and project.rows())
        project.write({"raw.txt": "2\n", "go": ""})
        assert dvc.wait(60) == 0
        follower.wait_for("prepare is FAILED: row ")
        wait(lambda: last(project).info.status == "FAILED")
        said = project.record()
        assert said.status == 1
        assert "the result of prepare is not recorded, as raw.txt changed" in said.error
        assert [row.info.status for row in project.rows()] == ["FAILED"]
        project.run("dvc", "repro", "-q", "-f", "prepare")
        wait(lambda: [row.info.status for row in project.rows()] == ["FAILED", "FINISHED"])
        assert project.record().status == 0
    assert last(project).data.metrics == {"train/loss": 0.25, "a/score": 1}


def test_for_several_rows(tmp_path: Path) -> None:
    """If it is a stage that several rows share, there is a FAILED row, and the others wait."""
    each = {**train(), "cmd": train()["cmd"].replace("model.txt", "${item}.txt")}
    each["cmd"] = each["cmd"].replace("curve.csv", "${item}.csv")
    each |= {"outs": ["${item}.txt"], "plots": [{"${item}.csv": {"cache": False, "x": "step"}}]}
    stages = {"prepare": gated(prepare()), "fit": {"foreach": ["x", "y"], "do": each}}
    project = repository(tmp_path / "project", stages)
    with following(project) as follower, started(project, "dvc", "repro") as dvc:
        wait((project.path / "began").exists)
        time.sleep(1)  # until it has been looked at
        project.write({"raw.txt": "2\n", "go": ""})
        assert dvc.wait(60) == 0
        follower.wait_for("prepare is FAILED: row ")
        said = project.record()
        assert said.status == 1
        assert "the result of prepare is not recorded, as raw.txt changed" in said.error
        assert [row.info.status for row in project.rows()] == ["FAILED"]
        project.run("dvc", "repro", "-q", "-f", "prepare")
        assert project.record().status == 0
        wait(lambda: len(project.rows()) == 3)


def test_under_the_prefix(tmp_path: Path) -> None:
    """The prefix changes nothing of that; what the stage made stays."""
    fit = train("raw.txt")
    cmd = f"dvc-mlflow run -c {shlex.quote(GATE + fit['cmd'])}"
    project = repository(tmp_path / "project", {"train": {**fit, "cmd": cmd}})
    with started(project, "dvc", "repro") as dvc:
        wait(lambda: (project.path / "began").exists() and project.rows(), 60)
        project.write({"raw.txt": "2\n", "go": ""})
        assert dvc.wait(60) == 0
    said = project.record()
    assert said.status == 1
    assert "raw.txt changed while it ran" in said.error
    assert (project.path / "model.txt").read_text() == "2\nrate: 1\n"
    project.run("dvc-mlflow", "run", "dvc", "repro", "-q", "-f", "train")
    assert project.record().status == 0
    assert [row.info.status for row in project.rows()] == ["FAILED", "FINISHED"]
