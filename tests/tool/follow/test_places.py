"""Wherever a pipeline is, and whatever runs beside it, each stage has the row that is its own."""

import json
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest

from support.clone import environment
from support.followers import followers
from support.following import SLOW, following, started, wait_for_rows
from support.pipelines import Repository, Stages, evaluate, repository
from support.waiting import wait

pytestmark = [
    pytest.mark.pipeline,
    pytest.mark.filterwarnings("ignore"),  # warnings from MLflow
]

SCORE = 'sleep 1; echo "{\\"n\\": %s}" > %s.json; sleep 2'


def scored(value: str, name: str, **more: object) -> dict[str, object]:
    """Return a stage that takes its time for a score in a file."""
    metrics = [{f"{name}.json": {"cache": False}}]
    return {"cmd": SCORE % (value, name), "metrics": metrics, **more}


def test_worktree(tmp_path: Path) -> None:
    """A git worktree that is made while the repository is followed is followed, too."""
    project = repository(tmp_path / "project", SLOW)
    tree = Repository(tmp_path / "tree")
    with following(project):
        project.git("worktree", "add", "-q", f"{tree.path}")
        tree.set({"rate": 7})
        time.sleep(6)  # as long as a list of worktrees is good
        with started(tree, "dvc", "repro"):
            wait_for_rows(project, "RUNNING")
        (row,) = wait_for_rows(project, "FINISHED")
        wait(lambda: project.rows()[0].data.params == {"rate": "7", "a": "1"})
        assert not (tree.path / "mlflow.db").exists()
        assert row.data.tags["mlflow.source.git.branch"] == "tree"


def test_monorepo(tmp_path: Path) -> None:
    """A project in a folder, and one in a folder of that, have rows in their own experiments."""
    project = repository(tmp_path / "project", {"a": scored("1", "a", deps=["raw.txt"])})
    for folder in ("inner", "inner/most"):
        (project.path / folder).mkdir()
        subprocess.run(
            ["dvc", "init", "-q", "--subdir"],
            cwd=project.path / folder,
            env=environment(),
            check=True,
        )
        stages = {"a": scored("2" if folder == "inner" else "3", "a")}
        project.write({f"{folder}/dvc.yaml": json.dumps({"stages": stages})})
    project.commit("Three projects")
    with following(project) as follower:
        for folder in (".", "inner", "inner/most"):
            with started(project, "dvc", "repro", folder=folder):
                wait(lambda: [r for r in project.rows() if r.info.status == "RUNNING"])
            wait(lambda: not [r for r in project.rows() if r.info.status == "RUNNING"])
        follower.wait_for("is FINISHED", 3)
        project.run("sh", "-c", "cd inner && dvc exp run -q --temp -f")
        follower.wait_for("is FINISHED", 4)
        rows = wait_for_rows(project, *["FINISHED"] * 3)
    assert [row.data.metrics for row in rows] == [{"a/n": 1}, {"a/n": 2}, {"a/n": 3}]
    names = [project.client.get_experiment(row.info.experiment_id).name for row in rows]
    assert names == ["project", "project/inner", "project/inner/most"]


def test_items(tmp_path: Path) -> None:
    """Items of a foreach and of a matrix have a row each, in turn; one has another `wdir`."""
    stages: Stages = {
        "each": {"foreach": ["x", "y"], "do": scored("1", "${item}", wdir="sub")},
        "grid": {"matrix": {"i": [1, 2]}, **scored("${item.i}", "g${item.i}")},
    }
    project = repository(tmp_path / "project", stages, files={"sub/.keep": ""})
    with following(project), started(project, "dvc", "repro"):
        seen: set[str] = set()

        def is_over() -> bool:
            seen.update(r.info.run_id for r in project.rows() if r.info.status == "RUNNING")
            return [r.info.status for r in project.rows()] == ["FINISHED"] * 4

        wait(is_over, 60)
        rows = project.rows()
    assert {row.info.run_id for row in rows} == seen
    assert sorted(next(iter(row.data.metrics.values())) for row in rows) == [1, 1, 1, 2]


def test_several(tmp_path: Path) -> None:
    """Several `dvc` at once in one project have a row each."""
    stages = {f"s{n}": scored(f"{n}", f"s{n}") for n in range(3)}
    project = repository(tmp_path / "project", stages)
    with following(project):
        with (
            started(project, "dvc", "repro", "s0"),
            started(project, "sh", "-c", "sleep 0.3; dvc repro s1"),
            started(project, "sh", "-c", "sleep 0.6; dvc repro s2"),
        ):
            wait(lambda: len([r for r in project.rows() if r.info.status == "RUNNING"]) > 1)
        rows = wait_for_rows(project, *["FINISHED"] * 3)
    metrics = [row.data.metrics for row in rows]
    assert sorted(map(str, metrics)) == ["{'s0/n': 0.0}", "{'s1/n': 1.0}", "{'s2/n': 2.0}"]


def test_another_repository(tmp_path: Path) -> None:
    """A stage that runs the `dvc` of another repository has its row, and the other one none."""
    other = repository(tmp_path / "other", {"a": scored("2", "a")})
    command = f"(cd {other.path} && dvc repro -q); {SCORE % (1, 'a')}"
    metrics = [{"a.json": {"cache": False}}]
    project = repository(tmp_path / "project", {"a": {"cmd": command, "metrics": metrics}})
    with following(project):
        project.run("dvc", "repro", "-q")
        (row,) = wait_for_rows(project, "FINISHED")
    assert row.data.metrics == {"a/n": 1}
    assert other.rows() == []


def test_daemon(tmp_path: Path) -> None:
    """A daemon that a stage leaves, with its variables, is no stage; nor is a `dvc` under it."""
    daemon = f"{sys.executable} -c 'import time; time.sleep(30)' >/dev/null 2>&1 &"
    project = repository(tmp_path / "project", {"a": scored("1", "a")})
    text = (
        (project.path / "dvc.yaml").read_text().replace("sleep 1; echo", f"{daemon} sleep 1; echo")
    )
    project.write({"dvc.yaml": text})
    with following(project) as follower:
        project.run("dvc", "repro", "-q")
        wait_for_rows(project, "FINISHED")
        for command in (["dvc", "status"], ["dvc", "repro"], ["dvc", "commit", "-f"]):
            project.run(*command, DVC_STAGE="a", DVC_ROOT=f"{project.path}")
        time.sleep(1)
        wait_for_rows(project, "FINISHED")
        follower.end()
        assert len([line for line in follower.lines if "RUNNING" in line]) == 1
    project.run("pkill", "-f", "time.sleep.30.")


@pytest.mark.parametrize("pid", ["dead", "used"])
def test_entries_of_the_dead(tmp_path: Path, pid: str) -> None:
    """An entry of a killed `dvc` is no run, also if its process id is used again."""
    project = repository(tmp_path / "project", {"a": {**evaluate("a", "raw.txt")}})
    project.run("dvc", "repro", "-q")
    number = os.getpid() if pid == "used" else 2**22 - 1
    entry = {"pid": number, "cmd": "dvc repro"}
    left = {"write": {f"{project.path}/a.json": entry}, "read": {}}
    project.write({".dvc/tmp/rwlock": json.dumps(left)})
    with following(project) as follower:
        wait_for_rows(project, "FINISHED")
        time.sleep(3)
        wait_for_rows(project, "FINISHED")
        follower.end()
        assert not [line for line in follower.lines if "RUNNING" in line]


def test_process_that_is_not_seen(tmp_path: Path) -> None:
    """An entry that stays is a run, as in a container; without a result its row goes."""
    project = repository(tmp_path / "project", {"a": evaluate("a", "raw.txt")})
    entry = {"pid": 2**22 - 1, "cmd": "dvc repro"}
    held = {"write": {f"{project.path}/a.json": entry}, "read": {}}
    with following(project):
        time.sleep(1)
        project.write({".dvc/tmp/rwlock": json.dumps(held)})
        wait_for_rows(project, "RUNNING")
        project.write({".dvc/tmp/rwlock": "{}"})
        wait_for_rows(project)
        project.write({".dvc/tmp/rwlock": json.dumps(held)})
        wait_for_rows(project, "RUNNING")
        (project.path / ".dvc/tmp/rwlock").unlink()
        project.run("dvc", "repro", "-q")
        (row,) = wait_for_rows(project, "FINISHED")
        assert row.data.metrics == {"a/score": 1}


def test_prefix(tmp_path: Path) -> None:
    """The prefix starts no second follower, and decides which stages are recorded."""
    stages = {
        k: {**v, "cmd": f"dvc-mlflow run -c {shlex.quote(v['cmd'])}"} for k, v in SLOW.items()
    }
    project = repository(tmp_path / "project", {**stages, "prepare": SLOW["prepare"]})
    with following(project):
        project.run("dvc", "repro", "-q")
        assert followers(project.path) == []
        assert project.record().status == 0
        (row,) = project.rows()
    assert row.data.metrics == {"train/loss": 0.25, "a/score": 1}
    assert project.rows(deleted=True) == []
