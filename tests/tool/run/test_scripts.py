"""Scripts that call MLflow: under `run` their run is the row, and else it is their own."""

import signal
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import pytest
from mlflow.entities import Run

from dvc_mlflow.pipeline.tags import FOUND_BY, LIVE, LOCK, PARENT, WHOLE
from support.following import following, run_dvc, started, statuses, wait_for_store
from support.pipelines import Repository, Stages, evaluate, repository, train
from support.processes import wait
from support.rebuilding import experiments

pytestmark = pytest.mark.pipeline

QUICK = "import atexit, gc; gc.disable(); atexit.register(gc.freeze)"
"""Begins a script: half the time of one that imports MLflow is the search for garbage."""
SCRIPT = f"""
{QUICK}
import os, sys, time
import mlflow
out, go = sys.argv[1:]
with mlflow.start_run(run_name="training"):
    mlflow.log_param("mine", 1)
    if not os.path.exists("plain"):
        mlflow.log_param("rate", "theirs")
    mlflow.log_metric("score", 0.5, step=3)
    mlflow.log_text("text", "note.txt")
    with mlflow.start_run(nested=True):
        mlflow.log_metric("inner", 1)
    while not os.path.exists(go):
        time.sleep(0.1)
    if os.path.exists("fails"):
        sys.exit("It fails")
    if not os.path.exists("plain"):
        mlflow.log_param("a", "1.0")
with mlflow.start_run(run_name="second"):
    mlflow.log_metric("score", 0.7)
open(out, "w").write("1")
"""
OTHERS = f"""
{QUICK}
import sys, time
import mlflow
if sys.argv[2:]:
    mlflow.set_experiment(sys.argv[2])
with mlflow.start_run():
    mlflow.log_metric("mine", 1)
time.sleep(2)
open(sys.argv[1], "w").write("1")
"""


def project_of(path: Path, stages: Stages) -> Repository:
    return repository(path, stages, files={"script.py": SCRIPT, "others.py": OTHERS})


def calling(command: str | list[str], out: str) -> dict[str, Any]:
    """Return a stage whose command runs a script."""
    return {"cmd": command, "deps": ["script.py"], "params": ["rate", "a"], "outs": [out]}


def tops(project: Repository) -> list[Run]:
    """Return the rows that are below no other, oldest first."""
    return [run for run in project.rows() if PARENT not in run.data.tags]


def check(project: Repository, begun: Run, stage: str, experiment: str) -> None:
    """Check the row whose run a script has opened, once its stage has ended."""
    row = project.client.get_run(begun.info.run_id)
    assert row.info.status == "FINISHED"
    assert row.data.params == {"mine": "1", "rate": "theirs", "a": "1.0"}  # none is refused
    assert row.data.tags[f"{LOCK}{stage}"][:7] in row.data.tags[FOUND_BY]
    assert row.info.run_name == "training"
    assert row.data.metrics["score"] == 0.5
    assert "note.txt" in project.artifacts(row)
    below = [run for run in project.rows() if run.data.tags.get(PARENT) == row.info.run_id]
    assert sorted(key for run in below for key in run.data.metrics) == ["inner", "score"]
    ids = {run.info.experiment_id for run in (row, *below)}
    assert {project.client.get_experiment(each).name for each in ids} == {experiment}


def ran(project: Repository, gates: Sequence[Path], *command: str) -> list[Run]:
    """Run a pipeline, and return the row of each script as it is while the script runs.

    Each waits for its gate, a file.
    """
    begun, old = list[Run](), {run.info.run_id for run in tops(project)}
    for gate in gates:
        gate.unlink(missing_ok=True)
    with started(project, *command) as process:
        for gate in gates:
            begun.append(begins(project, old))
            old.add(begun[-1].info.run_id)
            gate.touch()
        assert process.wait(180) == 0
    # Their params are not those of dvc.lock: only the follower knows that they are the rows.
    ids = [run.info.run_id for run in begun]
    wait_for_store(
        project, lambda: all(WHOLE in project.client.get_run(each).data.tags for each in ids), 60
    )
    for which in ([], ["--all"]):  # the checkout's, and an experiment's
        assert project.record(*which).status == 0
    return begun


def begins(project: Repository, old: Collection[str] = ()) -> Run:
    """Wait until a script's run is the only new row, and return it."""
    wait((project.path / "mlflow.db").exists, 120)

    def found() -> list[Run]:
        new = [run for run in tops(project) if run.info.run_id not in old]
        is_row = [(r.info.run_name, LIVE in r.data.tags) for r in new]
        return new if is_row == [("training", True)] else []

    (row,) = wait_for_store(project, found, 120)
    assert row.info.status == "RUNNING"
    assert row.data.params["mine"] == "1"
    return row


def test_prefix(tmp_path: Path) -> None:
    """The run that a script opens is the row, while it runs and then; further runs are below it.

    It is in the experiment of its row, also behind a shell and in a list of commands. If the
    follower is killed, `record` completes the row all the same, also that of a temporary copy.
    """
    named = {"meta": {"mlflow": {"experiment": "flowers"}}}
    gates = [tmp_path / "one", tmp_path / "two"]
    script = "dvc-mlflow run python script.py"
    behind = ["true", f"true && {script} two.txt {gates[1]} && true"]
    stages = {
        "one": {**calling(f"{script} one.txt {gates[0]}", "one.txt"), **named},
        "two": {**calling(behind, "two.txt"), **named},
    }
    project = project_of(tmp_path / "project", stages)
    with following(project) as follower:
        one, two = ran(project, gates, "dvc-mlflow", "run", "dvc", "repro", "one", "two")
        check(project, one, "one", "flowers")
        check(project, two, "two", "flowers")
        project.set({"rate": 2})
        # `record` takes no run whose params are not those of the result.
        project.write({"plain": ""})
        project.commit("Rate 2")
        gates[1].unlink()
        old = {run.info.run_id for run in tops(project)}
        with started(project, "dvc", "exp", "run", "--temp", "two") as dvc:
            row = begins(project, old)
            follower.end(signal.SIGKILL)
            gates[1].touch()
            assert dvc.wait(180) == 0
    assert project.record("--all").status == 0
    rows = [run for run in tops(project) if run.data.params.get("rate") == "2"]
    assert [(run.info.run_id, run.data.metrics) for run in rows] == [
        (row.info.run_id, {"score": 0.5})
    ]
    assert experiments(project) == ["flowers"]


@pytest.mark.rest
@pytest.mark.versions
def test_before_dvc(tmp_path: Path) -> None:
    """So it is before `dvc`, also in a shell, in an experiment, and if there is no store yet.

    If the result is there already, the script's run is below the row that has it; if the stage
    fails, it is the FAILED row; if the script has chosen another experiment, it stays there.
    """
    gate = tmp_path / "gate"
    stages = {
        "one": calling(f"python script.py one.txt {gate}", "one.txt"),
        "other": {"cmd": "python others.py other.txt theirs", "outs": ["other.txt"]},
    }
    project = project_of(tmp_path / "project", stages)
    project.remove_store()
    (first,) = ran(project, [gate], "dvc-mlflow", "run", "sh", "-c", "dvc exp run; true")
    check(project, first, "one", "project")
    folders = {path.relative_to(project.path).parts[0] for path in project.path.rglob("note.txt")}
    assert folders == {"mlartifacts"}
    rows = tops(project)
    names = [project.client.get_experiment(run.info.experiment_id).name for run in rows]
    assert sorted(names) == ["project", "project", "theirs"]
    log = (project.path / ".git/dvc-mlflow/follow.log").read_text()
    assert "`meta: {mlflow: {experiment: theirs}}` puts the row there" in log

    project.run("dvc-mlflow", "run", "dvc", "repro", "-q", "-f", "one")
    assert project.record().status == 0
    wait_for_store(project, lambda: len(tops(project)) == len(rows))
    assert "RUNNING" not in statuses(project)
    again = [r for r in project.rows() if r.info.run_name == "training"]
    assert [r.data.tags.get(PARENT) for r in again] == [None, first.info.run_id]
    assert again[1].data.metrics == {"score": 0.5}

    project.write({"fails": ""})
    assert project.run("dvc-mlflow", "run", "dvc", "repro", "-f", "one", check=False).returncode
    project.record()

    def ended() -> list[Run]:
        failed = [run for run in tops(project) if run.info.status == "FAILED"]
        return [run for run in failed if not run.data.tags[LIVE]]

    (row,) = wait_for_store(project, ended)
    assert row.data.metrics == {"score": 0.5}


@pytest.mark.rest
def test_not_under_run(tmp_path: Path) -> None:
    """Under plain `dvc` a script's run stays its own, and a line recommends `run`."""
    stage = {"cmd": "python others.py x", "params": ["rate"], "outs": ["x"]}
    project = project_of(tmp_path / "project", {"x": stage})
    with following(project) as follower:
        run_dvc(project, "repro", "-q", "x")
        follower.wait_for("x: its script has opened runs in MLflow itself; under `dvc-mlflow run")
        follower.wait_for("x is FINISHED")
    (row,) = [run for run in project.rows() if WHOLE in run.data.tags]
    assert row.data.metrics == {}
    assert len(tops(project)) == 2


def test_tool_below_run(tmp_path: Path) -> None:
    """What `run` sets is for scripts: the tool's own commands below it record where they would."""
    stages = {
        "x": {**train("raw.txt"), "meta": {"mlflow": {"experiment": "first"}}},
        "y": {**evaluate("a", "raw.txt"), "meta": {"mlflow": {"experiment": "second"}}},
    }
    project = repository(tmp_path / "project", stages)
    with following(project):
        lines = project.run("dvc-mlflow", "run", "env").stdout.splitlines()
    given = dict(line.split("=", 1) for line in lines if line.startswith("MLFLOW_"))
    assert given["MLFLOW_EXPERIMENT_NAME"] == "first"
    project.dvc("repro", "-q")
    assert project.tool("record", **given).status == 0
    assert experiments(project) == ["first", "second"]
