"""The follower that `dvc-mlflow run` starts: in nobody's way, and gone soon after its `dvc`."""

import os
import signal
import subprocess
import time
from pathlib import Path

import dvc.cli.parser
import psutil
import pytest

from support.clone import environment
from support.followers import end_followers, followers
from support.following import SLOW, following, started, wait_for_rows
from support.pipelines import Repository, evaluate, repository, train
from support.waiting import wait

pytestmark = [
    pytest.mark.pipeline,
    pytest.mark.versions,
    pytest.mark.filterwarnings("ignore"),  # warnings from MLflow
]

QUICK = {"train": train("raw.txt"), "a": evaluate("a")}
GATED = {
    "train": {
        **train("raw.txt"),
        "cmd": f"until test -e go; do sleep 0.1; done; {train('raw.txt')['cmd']}",
    },
    "a": evaluate("a"),
}


@pytest.fixture
def project(tmp_path: Path) -> Repository:
    """A pipeline in which nothing has run, without a store."""
    made = repository(tmp_path / "project", QUICK)
    made.remove_store()
    return made


def log(project: Repository) -> str:
    return (project.path / ".dvc/tmp/dvc-mlflow/follow.log").read_text()


def test_alone(project: Repository) -> None:
    """It has a session of its own, holds nobody's descriptor, and ends by itself."""
    with subprocess.Popen(
        ["sh", "-c", "dvc-mlflow run dvc repro 2>&1 | cat"],
        cwd=project.path,
        env=environment(DVC_STAGE=""),
        stdout=subprocess.PIPE,
        text=True,
    ) as shell:
        said, _ = shell.communicate(timeout=60)  # else the pipe would wait for the follower
    assert "Running stage 'train'" in said
    (follower,) = followers(project.path)
    assert os.getsid(follower.pid) != os.getsid(0)
    assert follower.ppid() != shell.pid
    opened = {Path(f"/proc/{follower.pid}/fd/{n}").resolve() for n in (0, 1, 2)}
    own = project.path / ".dvc/tmp/dvc-mlflow/follow.log"
    assert opened == {Path("/dev/null"), own}
    assert Path(follower.cwd()) == project.path
    assert project.record().status == 0
    (row,) = project.rows()
    assert (row.info.status, row.data.metrics) == ("FINISHED", {"train/loss": 0.25, "a/score": 1})
    psutil.wait_procs([follower], 40)
    assert not follower.is_running()
    assert "Traceback" not in log(project)


def test_one_for_all(tmp_path: Path) -> None:
    """Several at once, also in stages, have one; what begins while it ends has one, too."""
    stage = "exec dvc-mlflow run sh -c"
    stages = {
        name: {"cmd": f"{stage} 'sleep 2; echo 1 > {name}'", "deps": ["raw.txt"], "outs": [name]}
        for name in ("x", "y", "z")
    }
    project = repository(tmp_path / "project", stages)
    commands = [["dvc-mlflow", "run", "dvc", "repro", "-q", name] for name in stages]
    running = [subprocess.Popen(c, cwd=project.path, env=environment()) for c in commands]
    (follower,) = wait(lambda: followers(project.path))
    for each in running:
        assert each.wait(60) == 0
        assert followers(project.path) == [follower]
    assert project.record().status == 0
    assert {row.info.status for row in project.rows()} == {"FINISHED"}
    assert len(project.rows()) == 3
    for rate in range(2):  # whether it is still there, about to end, or gone
        time.sleep(9.5 + rate)
        project.write({"raw.txt": f"{rate}\n"})
        project.run("dvc-mlflow", "run", "dvc", "repro", "-q", "x")
        assert len(followers(project.path)) == 1


def test_beside_another(project: Repository) -> None:
    """Where one follows already, none is started."""
    with following(project):
        project.run("dvc-mlflow", "run", "dvc", "repro", "-q")
        assert followers(project.path) == []
        wait_for_rows(project, "FINISHED")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_killed(tmp_path: Path, number: int) -> None:
    """If it is killed, `dvc` sees nothing of it, and `record` completes the row that it began."""
    project = repository(tmp_path / "project", GATED)
    with started(project, "dvc-mlflow", "run", "dvc", "repro") as dvc:
        (begun,) = wait(project.rows, 60)
        for each in followers(project.path):
            each.send_signal(number)
        wait(lambda: not followers(project.path))
        project.write({"go": ""})
        assert dvc.wait(60) == 0
    assert project.record().status == 0
    (row,) = project.rows()
    assert (row.info.status, row.info.run_id) == ("FINISHED", begun.info.run_id)
    assert row.data.metrics == {"train/loss": 0.25, "a/score": 1}
    assert project.rows(deleted=True) == []


def test_barrier(tmp_path: Path) -> None:
    """`record` returns when no ended stage lacks its row, prints the rows, and adds none twice."""
    project = repository(tmp_path / "project", SLOW)
    for rate in (1, 2, 3):
        project.set({"rate": rate})
        project.run("dvc-mlflow", "run", "dvc", "repro", "-q")
        said = project.run("dvc-mlflow", "record")
        rows = project.rows()
        assert [row.info.status for row in rows] == ["FINISHED"] * rate
        assert rows[-1].data.metrics == {"train/loss": 0.25, "a/score": 1}
        assert f"row {rows[-1].info.run_name!r}" in said.stdout
    assert len(followers(project.path)) == 1
    assert project.rows(deleted=True) == []


def test_follower_that_does_not_answer(project: Repository) -> None:
    """If the follower is stopped, `record` says so after half a minute, and does all itself."""
    project.run("dvc-mlflow", "run", "dvc", "repro", "-q")
    (follower,) = followers(project.path)
    follower.suspend()
    said = project.record()
    follower.resume()
    assert f"process {follower.pid}, which follows this repository, does not answer" in said.error
    (row,) = project.rows()
    assert row.info.status == "FINISHED"
    assert project.record().status == 0
    assert len(project.rows()) == 1


def test_history_is_not_read(tmp_path: Path) -> None:
    """What git has already is left to `ui` and `record --all`; what is new is recorded."""
    project = repository(tmp_path / "project", QUICK)
    for rate in (1, 2):
        project.set({"rate": rate})
        project.run("dvc", "repro", "-q")
        project.commit(f"Rate {rate}")
    project.run("dvc-mlflow", "run", "dvc", "exp", "run", "-q", "-S", "rate=3", "-n", "mine")
    project.git("checkout", "-q", ".")
    project.run("dvc-mlflow", "run", "dvc", "exp", "run", "-q", "--temp", "-S", "rate=4")
    assert project.record("--experiments").status == 0
    assert {"3", "4"} <= {row.data.params["rate"] for row in project.rows()} <= {"2", "3", "4"}
    end_followers(project.path)
    assert project.record("--all").status == 0
    assert len(project.rows()) == 4


def test_store_is_away(project: Repository) -> None:
    """A server that is away costs no stage anything, and `record` says what is wrong."""
    away = "http://127.0.0.1:9"
    done = project.run("dvc-mlflow", "run", "dvc", "repro", "-q", MLFLOW_TRACKING_URI=away)
    assert done.stderr == ""
    said = project.run("dvc-mlflow", "record", check=False, MLFLOW_TRACKING_URI=away)
    assert said.returncode == 1
    assert "MLflow at http://127.0.0.1:9" in said.stderr
    assert project.record().status == 0
    assert len(project.rows()) == 1


@pytest.mark.skipif(
    "--wait-for-lock" not in Path(dvc.cli.parser.__file__).read_text(),
    reason="needs `dvc --wait-for-lock`",
)
def test_experiments_at_once(project: Repository, slow: bool) -> None:
    """Experiments that start at the same moment, with no store yet, have a row each."""
    number = 8 if slow else 3
    command = ["dvc-mlflow", "run", "dvc", "--wait-for-lock", "exp", "run", "-q", "--temp"]
    running = [
        subprocess.Popen([*command, "-S", f"rate={n}"], cwd=project.path, env=environment())
        for n in range(2, 2 + number)
    ]
    assert [each.wait(120) for each in running] == [0] * number
    assert project.record("--experiments").status == 0
    rows = project.rows()
    assert sorted(int(row.data.params["rate"]) for row in rows) == [*range(2, 2 + number)]
    assert {row.info.status for row in rows} == {"FINISHED"}
