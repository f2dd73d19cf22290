"""The follower that `dvc-mlflow run` starts: in nobody's way, and gone soon after its `dvc`."""

import os
import shlex
import shutil
import subprocess
from pathlib import Path

import dvc.cli.parser
import psutil
import pytest

from support.clone import environment
from support.followers import end_followers, followers
from support.following import following, started, statuses, wait_for_rows
from support.pipelines import Repository, evaluate, repository, train
from support.waiting import wait

pytestmark = [
    pytest.mark.pipeline,
    pytest.mark.filterwarnings("ignore"),  # warnings from MLflow
]

QUICK = {"train": train("raw.txt"), "a": evaluate("a")}
PREFIX = "exec dvc-mlflow run sh -c"


@pytest.fixture
def project(tmp_path: Path) -> Repository:
    """A pipeline in which nothing has run, without a store."""
    made = repository(tmp_path / "project", QUICK)
    made.remove_store()
    return made


def log(project: Repository) -> str:
    return (project.path / ".git/dvc-mlflow/follow.log").read_text()


def opened(pid: int) -> set[Path]:
    """Return what the standard streams of a process are."""
    return {Path(f"/proc/{pid}/fd/{n}").resolve() for n in (0, 1, 2)}


def test_one_follower(tmp_path: Path) -> None:
    """It has a session of its own, holds nobody's descriptor, and ends by itself.

    Several commands at once, also in stages, have one; after `record`, each ended stage has its
    whole row, and it prints the rows.
    """
    stages = {
        name: {"cmd": f"{PREFIX} 'sleep 1; echo 1 > {name}'", "deps": ["raw.txt"], "outs": [name]}
        for name in ("x", "y")
    }
    fit = train("raw.txt")
    stages["train"] = {**fit, "cmd": f"{PREFIX} {shlex.quote(fit['cmd'])}"}
    project = repository(tmp_path / "project", stages)
    project.remove_store()
    with subprocess.Popen(
        ["sh", "-c", "dvc-mlflow run dvc repro train 2>&1 | cat"],
        cwd=project.path,
        env=environment(DVC_STAGE=""),
        stdout=subprocess.PIPE,
        text=True,
    ) as shell:
        said, _ = shell.communicate(timeout=300)  # else the pipe would wait for the follower
    assert "Running stage 'train'" in said
    (follower,) = followers(project.path)
    assert os.getsid(follower.pid) != os.getsid(0)
    assert follower.ppid() != shell.pid
    assert opened(follower.pid) == {
        *(Path("/dev/null"), project.path / ".git/dvc-mlflow/follow.log")
    }
    assert Path(follower.cwd()) == project.path
    for number in (1, 2):
        line = project.record()
        *_, row = project.rows()
        assert (len(project.rows()), row.info.status) == (number, "FINISHED")
        assert row.data.metrics == {"train/loss": 0.25}
        assert repr(row.info.run_name) in line.out
        if number == 1:
            project.set({"rate": 2})
            project.run("dvc-mlflow", "run", "dvc", "repro", "-q", "train")
    commands = [["dvc-mlflow", "run", "dvc", "repro", "-q", name] for name in ("x", "y")]
    running = [subprocess.Popen(c, cwd=project.path, env=environment()) for c in commands]
    assert [each.wait(60) for each in running] == [0, 0]
    (follower,) = followers(project.path)
    assert project.record().status == 0
    assert statuses(project) == ["FINISHED"] * 4
    assert project.rows(deleted=True) == []
    psutil.wait_procs([follower], 60)
    assert not follower.is_running()
    assert "Traceback" not in log(project)
    project.run("dvc-mlflow", "run", "true")
    assert len(followers(project.path)) == 1


def test_beside_another(tmp_path: Path) -> None:
    """Where one follows already, none is started, neither before `dvc` nor in a stage."""
    quoted = {k: {**v, "cmd": f"{PREFIX} {shlex.quote(v['cmd'])}"} for k, v in QUICK.items()}
    project = repository(tmp_path / "project", quoted)
    with following(project):
        project.run("dvc-mlflow", "run", "dvc", "repro", "-q")
        assert followers(project.path) == []
        wait_for_rows(project, "FINISHED")
        assert project.record().status == 0
        assert project.rows()[0].data.metrics == {"train/loss": 0.25, "a/score": 1}
    assert project.rows(deleted=True) == []


def test_store_is_away(project: Repository) -> None:
    """A server that is away costs no stage anything, and `record` says what is wrong."""
    away = "http://127.0.0.1:9"
    done = project.run("dvc-mlflow", "run", "dvc", "repro", "-q", MLFLOW_TRACKING_URI=away)
    assert done.stderr == ""
    said = project.tool("record", MLFLOW_TRACKING_URI=away)
    assert said.status == 1
    assert "MLflow at http://127.0.0.1:9" in said.error
    assert project.record().status == 0
    assert len(project.rows()) == 1


@pytest.mark.skipif(
    "--wait-for-lock" not in Path(dvc.cli.parser.__file__).read_text(),
    reason="needs `dvc --wait-for-lock`",
)
def test_experiments_at_once(project: Repository, slow: bool) -> None:
    """Experiments that start at the same moment, with no store yet, have a row each.

    What git has already is left to `ui` and `record --all`.
    """
    for rate in (1, 2):
        project.set({"rate": rate})
        project.dvc("repro", "-q")
        project.commit(f"Rate {rate}")
    rates = [*range(3, 11 if slow else 5)]
    command = ["dvc-mlflow", "run", "dvc", "--wait-for-lock", "exp", "run", "-q", "--temp"]
    running = [
        subprocess.Popen([*command, "-S", f"rate={n}"], cwd=project.path, env=environment())
        for n in rates
    ]
    assert [each.wait(120) for each in running] == [0] * len(rates)

    def recorded() -> list[int]:
        done = [row for row in project.rows() if row.info.status == "FINISHED"]
        return sorted(int(row.data.params["rate"]) for row in done)

    wait(lambda: recorded() in (rates, [2, *rates]), 60)  # 2 is in the checkout
    end_followers(project.path)
    assert project.record("--all").status == 0
    assert recorded() == [1, 2, *rates]


def test_removed_repository(tmp_path: Path) -> None:
    """A follower ends with its repository, though a row has not ended."""
    stage = {"cmd": "sleep 600", "metrics": ["m.json"]}
    project = repository(tmp_path / "project", {"one": stage})
    with started(project, "dvc-mlflow", "run", "dvc", "repro") as dvc:
        wait_for_rows(project, "RUNNING")
        there = followers(project.path)  # a fork of it can be among them
        assert there
        while project.path.exists():  # the follower can be writing
            shutil.rmtree(project.path, ignore_errors=True)
        assert not psutil.wait_procs(there, 60)[1]
        dvc.kill()
