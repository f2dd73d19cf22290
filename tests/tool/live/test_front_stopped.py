"""When `dvc-mlflow dvc`, or what it starts, is stopped or killed, all of it ends."""

import os
import pty
import signal
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from support.clone import environment
from support.fronts import started, unheard
from support.live_runs import last, recorders, wait
from support.pipelines import Repository

pytestmark = [
    pytest.mark.pipeline,
    pytest.mark.rest,
    pytest.mark.filterwarnings("ignore"),  # warnings from MLflow
]


@pytest.fixture
def project(tmp_path: Path) -> Repository:
    """A pipeline whose stage waits for a minute."""
    cmd = "touch started; exec sleep 60"
    stage = {"cmd": cmd, "params": ["rate"], "metrics": [{"m.json": {"cache": False}}]}
    made = unheard(tmp_path / "project", {"one": stage})
    made.add_store()
    return made


def process(pid: int, who: str) -> psutil.Process:
    """Return one of the processes below the tool: `dvc`, or the tool's shell."""
    dvc = psutil.Process(pid).children()[0]
    return {"tool": psutil.Process(pid), "dvc": dvc, "shell": dvc.children()[0]}[who]


def check_ended(project: Repository, tree: Sequence[psutil.Process]) -> None:
    """Check that all these processes and the recorder end, and that the row is KILLED."""
    wait(lambda: not any(p.is_running() and p.status() != "zombie" for p in tree), 20)
    wait(lambda: not recorders(project), 20)
    project.record()
    assert {row.info.status for row in project.rows()} == {"KILLED"}
    assert not [*(project.path / ".dvc" / "tmp" / "dvc-mlflow").glob("*.ran")]


@pytest.mark.parametrize("who", ["terminal", "tool", "dvc", "shell", "group"])
def test_stopped(project: Repository, who: str) -> None:
    """Ctrl-C, or SIGTERM to any of them, ends all of them, and the row is KILLED."""
    pid, terminal = pty.fork()
    if not pid:
        os.chdir(project.path)
        os.execvpe("dvc-mlflow", ["dvc-mlflow", "dvc", "repro"], environment())  # noqa: S606
    wait((project.path / "started").exists, 60)
    wait(project.rows)
    tree = psutil.Process(pid).children(recursive=True)
    if who == "terminal":
        os.write(terminal, b"\x03")
    elif who == "group":
        os.killpg(pid, signal.SIGTERM)
    else:
        process(pid, who).terminate()
    printed = b""
    with suppress(OSError):
        while got := os.read(terminal, 1024):
            printed += got
    _, status = os.waitpid(pid, 0)
    # As `dvc` alone: it reports that its stage has failed, or is ended by the signal.
    by_signal = who in ("tool", "dvc", "group")
    assert os.waitstatus_to_exitcode(status) == (-signal.SIGTERM if by_signal else 255)
    assert b"Traceback" not in printed
    assert last(project).info.status == "KILLED" or recorders(project)
    check_ended(project, tree)


@pytest.mark.parametrize("who", ["tool", "dvc", "shell"])
def test_killed(project: Repository, who: str) -> None:
    """After a SIGKILL of any of them none lives on, and no row stays RUNNING."""
    with started(project, "repro") as tool:
        wait((project.path / "started").exists, 60)
        wait(project.rows)
        tree = psutil.Process(tool.pid).children(recursive=True)
        process(tool.pid, who).kill()
        code = tool.wait(30)
    assert code == (255 if who == "shell" else -signal.SIGKILL)
    for note in (project.path / ".dvc" / "tmp" / "dvc-mlflow").glob("*.ran"):
        assert who == "tool"
        note.unlink()
    check_ended(project, tree)
