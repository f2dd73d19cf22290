"""When a stage, its recorder or `dvc` is stopped or killed, all of them end."""

import os
import pty
import signal
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from support.clone import environment
from support.live_runs import last, one, recorders, reproducing, wait
from support.pipelines import repository

pytestmark = [
    pytest.mark.pipeline,
    pytest.mark.versions,
    pytest.mark.rest,
    pytest.mark.filterwarnings("ignore"),  # warnings from MLflow
]


SLEEP = "touch started; exec sleep 60"


@pytest.mark.parametrize("who", ["terminal", "dvc", "group", "run"])
def test_stopped(tmp_path: Path, who: str) -> None:
    """Ctrl-C, or SIGTERM to `dvc`, `run` or the group, ends all processes; the row is KILLED."""
    project = repository(
        tmp_path / "project", one("sh script", deps=["script"]), files={"script": SLEEP}
    )
    pid, terminal = pty.fork()
    if not pid:
        os.chdir(project.path)
        os.execvpe("dvc", ["dvc", "repro"], environment())  # noqa: S606
    wait((project.path / "started").exists, 60)
    wait(project.rows)
    tree = psutil.Process(pid).children(recursive=True)
    runner = next(p for p in tree if any("dvc-mlflow" in word for word in p.cmdline()))
    if who == "terminal":
        os.write(terminal, b"\x03")
    elif who == "group":
        os.killpg(pid, signal.SIGTERM)
    else:
        os.kill({"dvc": pid, "run": runner.pid}[who], signal.SIGTERM)
    with suppress(OSError):
        while os.read(terminal, 1024):
            pass
    os.waitpid(pid, 0)
    wait(lambda: not any(p.is_running() and p.status() != "zombie" for p in tree), 15)
    wait(lambda: last(project).info.status == "KILLED", 15)
    wait(lambda: not recorders(project), 10)


@pytest.mark.parametrize("who", ["run", "recorder", "dvc"])
def test_killed(tmp_path: Path, who: str) -> None:
    """After a SIGKILL, neither command nor recorder lives on, and no row stays RUNNING."""
    project = repository(
        tmp_path / "project", one("sh script", deps=["script"]), files={"script": SLEEP}
    )
    with reproducing(project) as dvc:
        wait((project.path / "started").exists, 60)
        wait(project.rows)
        tree = psutil.Process(dvc.pid).children(recursive=True)
        runner = next(p for p in tree if any("dvc-mlflow" in word for word in p.cmdline()))
        (recorder,) = recorders(project)
        pid = {"run": runner.pid, "recorder": recorder.pid, "dvc": dvc.pid}[who]
        os.kill(pid, signal.SIGKILL)
        if who == "recorder":
            os.kill(runner.pid, signal.SIGTERM)
        wait(lambda: not any(p.is_running() and p.status() != "zombie" for p in tree), 15)
        wait(lambda: not recorders(project), 10)
    project.record()
    assert {row.info.status for row in project.rows()} == {"KILLED"}


def test_recorder_lost(tmp_path: Path) -> None:
    """A stage whose recorder is lost succeeds, and one line says how to record it later."""
    script = "touch started; while [ ! -e go ]; do sleep 0.1; done; echo 1 > out.txt"
    project = repository(
        tmp_path / "project",
        one("sh script", deps=["script"], outs=["out.txt"]),
        files={"script": script},
    )
    with reproducing(project) as dvc:
        wait((project.path / "started").exists, 60)
        wait(project.rows)
        os.kill(recorders(project)[0].pid, signal.SIGKILL)
        (project.path / "go").touch()
        out, _ = dvc.communicate(timeout=60)
    assert dvc.returncode == 0
    assert out.count("dvc-mlflow: ") == 1
    assert "the stage is not recorded, as its recorder was lost: " in out
    assert "; `dvc-mlflow record` records it later" in out
    project.record()
    assert last(project).info.status == "FINISHED"
