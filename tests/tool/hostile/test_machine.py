"""The machine is hostile: a stage ends as it would without the tool, and keeps its row."""

import os
import resource
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from dvc_mlflow.live.protocol import Link
from dvc_mlflow.live.recorder import Session
from support.live_runs import last, one, recorders, reproducing, wait
from support.pipelines import Repository, repository

pytestmark = [
    pytest.mark.pipeline,
    pytest.mark.filterwarnings("ignore"),  # warnings from MLflow
]

WAITS = """
import pathlib, time
pathlib.Path("began").touch()
while not pathlib.Path("go").exists():
    time.sleep(0.05)
pathlib.Path("m.json").write_text('{"n": 1}')
"""


def waiting(folder: Path) -> Repository:
    """Return a pipeline whose stage waits for a file `go`."""
    stages = one("python script.py", deps=["script.py"], metrics=[{"m.json": {"cache": False}}])
    return repository(folder / "project", stages, files={"script.py": WAITS})


def messages() -> list[bytes]:
    """Return what no recorder should get."""
    import marshal

    bodies = [b"\xff" * 9, b"i", marshal.dumps(7), marshal.dumps({"x": 1}), marshal.dumps([1])]
    whole = [len(body).to_bytes(4, "big") + body for body in bodies]
    return [
        *whole,
        b"\x00",
        b"\x00\x00\x10\x00half",
        b"\xff\xff\xff\xff" + b"x" * 100_000,
        b"GET /",
    ]


@pytest.mark.parametrize("number", range(len(messages())))
def test_message(number: int) -> None:
    """A recorder ends the session that has sent what is no request, and lives on."""
    content = messages()[number]
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(content)
        session = Session(Link(theirs))
        assert session.hear() in (True, False)
        ours.shutdown(socket.SHUT_WR)
        assert not session.hear()


OTHER_USER = """
import os, socket, sys
os.setuid(65534)
end = socket.socket(socket.AF_UNIX)
end.connect(sys.argv[1])
end.settimeout(20)
print(end.recv(1) == b"")
"""


def test_socket(tmp_path: Path) -> None:
    """Garbage, half and huge messages, and a thousand connections, cost no stage its row."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    project = waiting(tmp_path)
    with reproducing(project) as dvc, ExitStack() as opened:
        wait(project.rows, 120)  # its recorder is at work
        folder = project.path / ".dvc/tmp/dvc-mlflow"
        (path,) = wait(lambda: [p for p in folder.iterdir() if p.is_socket()])
        descriptor = os.open(folder, os.O_RDONLY)
        address = f"/proc/self/fd/{descriptor}/{path.name}"
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4096), hard))
        opened.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        opened.callback(os.close, descriptor)
        for content in messages():
            end = opened.enter_context(socket.socket(socket.AF_UNIX))
            end.connect(address)
            with suppress(OSError):
                end.sendall(content)
        for _ in range(1200):
            end = opened.enter_context(socket.socket(socket.AF_UNIX))
            end.setblocking(False)
            with suppress(BlockingIOError):
                end.connect(address)
        time.sleep(3)  # until it has heard some of them
        (project.path / "go").touch()
        assert dvc.wait(120) == 0
        row = last(project)
        assert (row.info.status, row.data.metrics) == ("FINISHED", {"one/n": 1})
        wait(lambda: not recorders(project), 60)  # though the connections are open


@pytest.mark.skipif(os.getuid() != 0, reason="needs another user")
def test_socket_of_another_user(tmp_path: Path) -> None:
    """Whoever else may reach the socket gets no answer; the stage keeps its row."""
    project = waiting(tmp_path)
    with reproducing(project) as dvc:
        wait((project.path / "began").exists, 60)
        folder = project.path / ".dvc/tmp/dvc-mlflow"
        (path,) = wait(lambda: [p for p in folder.iterdir() if p.is_socket()])
        path.chmod(0o777)
        near = tmp_path / "s"
        for above in (folder, *folder.parents):
            if above.is_relative_to(tmp_path.parents[2]) and above != Path("/tmp"):  # noqa: S108
                above.chmod(0o755)
        near.symlink_to(path)
        code = f"import os; os.chdir({f'{folder}'!r})\n{OTHER_USER}"
        command = [sys.executable, "-c", code, path.name]
        said = subprocess.run(command, capture_output=True, text=True, check=True)
        assert said.stdout == "True\n"
        (project.path / "go").touch()
        assert dvc.wait(120) == 0
    assert last(project).info.status == "FINISHED"


@pytest.mark.rest
def test_stopped_recorder(tmp_path: Path) -> None:
    """A recorder that is stopped costs seconds and one line, not the stage."""
    project = waiting(tmp_path)
    with reproducing(project) as dvc:
        wait((project.path / "began").exists, 60)
        for recorder in (stopped := wait(lambda: recorders(project))):
            recorder.send_signal(signal.SIGSTOP)
        (project.path / "go").touch()
        said, _ = dvc.communicate(timeout=120)
        for recorder in stopped:
            recorder.send_signal(signal.SIGCONT)
    assert dvc.returncode == 0
    assert "its recorder was lost: it does not answer; `dvc-mlflow record` records it" in said
    wait(lambda: not recorders(project), 60)
    assert project.record().status == 0
    rows = [row for row in project.rows() if row.info.status == "FINISHED"]
    assert [row.data.metrics for row in rows] == [{"one/n": 1}]


@pytest.mark.rest
def test_terminated_recorder(tmp_path: Path) -> None:
    """A recorder ends at SIGTERM; that costs one line, not the stage."""
    project = waiting(tmp_path)
    with reproducing(project) as dvc:
        wait(project.rows, 120)
        for recorder in wait(lambda: recorders(project)):
            recorder.terminate()
        wait(lambda: not recorders(project), 30)
        (project.path / "go").touch()
        said, _ = dvc.communicate(timeout=120)
    assert dvc.returncode == 0
    assert "its recorder was lost" in said
    assert project.record().status == 0
    assert {row.info.status for row in project.rows()} == {"FINISHED", "KILLED"}


@pytest.mark.rest
def test_forgotten_row(tmp_path: Path) -> None:
    """`forget` of the row of a running stage costs one line; `record` adds the result."""
    project = waiting(tmp_path)
    with reproducing(project) as dvc:
        (row,) = wait(project.rows, 120)
        assert project.tool("forget", row.info.run_id).status == 0
        (project.path / "go").touch()
        said, _ = dvc.communicate(timeout=120)
    assert dvc.returncode == 0
    assert "must be in the 'active' state" in said
    assert project.rows() == []
    assert project.record().status == 0
    (added,) = project.rows()
    assert (added.info.status, added.data.metrics) == ("FINISHED", {"one/n": 1})


FAKETIME = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)


@pytest.mark.rest
@pytest.mark.skipif(not FAKETIME, reason="needs libfaketime")
def test_clock_set_back(tmp_path: Path) -> None:
    """A clock that is set back while a stage runs, or before, costs neither stage nor row.

    Before the second run, files were changed later than it begins.
    """
    project, clock = waiting(tmp_path), tmp_path / "clock"
    clock.write_text("+0")
    faked = {"LD_PRELOAD": f"{FAKETIME}", "FAKETIME_TIMESTAMP_FILE": f"{clock}"}
    faked |= {"FAKETIME_NO_CACHE": "1", "DONT_FAKE_MONOTONIC": "1", "NO_FAKE_STAT": "1"}
    with reproducing(project, **faked) as dvc:
        wait(project.rows, 120)
        clock.write_text("-1d")
        (project.path / "go").touch()
        said, _ = dvc.communicate(timeout=120)
    assert dvc.returncode == 0, said
    assert [row.info.status for row in project.rows()] == ["FINISHED"]
    (project.path / "script.py").write_text(WAITS.replace("1}", "2}"))
    with reproducing(project, **faked) as dvc:
        said, _ = dvc.communicate(timeout=120)
    assert dvc.returncode == 0, said
    rows = {row.data.metrics["one/n"]: row.info for row in project.rows()}
    assert {n: row.status for n, row in rows.items()} == {1: "FINISHED", 2: "FINISHED"}
    assert rows[2].start_time < rows[1].start_time - 80_000_000  # it was a day before, in ms
    assert project.record().status == 0
    assert len(project.rows()) == 2


ODD_CURVE = """
import os, pathlib, time
curve = pathlib.Path("curve.csv")
curve.write_text("step,loss\\n1,0.5\\n")
time.sleep(4)
curve.unlink()
{what}
time.sleep(4)
curve.unlink()
curve.write_text("step,loss\\n1,0.25\\n2,0.125\\n")
"""
WHATS = {
    "fifo": "os.mkfifo(curve)",
    "device": "os.symlink('/dev/zero', curve)",
    "line": "curve.write_text('step,loss\\n' + 'x' * 50_000_000)",
    "short": "curve.write_text('step')",
    "loop": "os.symlink('curve.csv', curve)",
}


@pytest.mark.parametrize(
    "what",
    ["fifo", *(pytest.param(w, marks=pytest.mark.rest) for w in WHATS if w != "fifo")],
)
def test_odd_curve(tmp_path: Path, what: str) -> None:
    """A curve that becomes a FIFO, a device, one line without an end, is read when it is whole."""
    script = ODD_CURVE.format(what=WHATS[what])
    plot = {"curve.csv": {"cache": False, "x": "step"}}
    stages = one("python script.py", deps=["script.py"], plots=[plot])
    project = repository(tmp_path / "project", stages, files={"script.py": script})
    with reproducing(project) as dvc:
        said, _ = dvc.communicate(timeout=120)
    assert dvc.returncode == 0, said
    row = last(project)
    history = project.client.get_metric_history(row.info.run_id, "one/loss")
    assert [(point.step, point.value) for point in history] == [(1, 0.25), (2, 0.125)]
    assert row.info.status == "FINISHED"


LEAVES = {
    "daemon": "(setsid sh -c 'sleep 20' &)",
    "closes": "exec 0<&- 1>&- 2>&-; echo 1 > other",
    "group": "setsid sh -c 'sleep 1; echo 1 > other'",
    "stopped": "sh -c 'kill -STOP $$' & sleep 1; kill -CONT $!",
}


@pytest.mark.rest
@pytest.mark.parametrize("what", LEAVES)
def test_odd_stage(tmp_path: Path, what: str) -> None:
    """A stage that leaves a daemon, closes its streams or changes its group ends as without it."""
    cmd = f"{LEAVES[what]}; echo '{{\"n\": 1}}' > m.json"
    stage = {"cmd": cmd, "metrics": [{"m.json": {"cache": False}}], "deps": ["raw.txt"]}
    project = repository(tmp_path / "project", {"one": stage})
    plain = project.copy(tmp_path / "plain")
    done = project.run("dvc-mlflow", "dvc", "repro", check=False)
    twin = plain.run("dvc", "repro", check=False)
    assert done.returncode == twin.returncode == 0
    assert done.stdout == twin.stdout
    assert project.lock == plain.lock
    assert [row.data.metrics for row in project.rows()] == [{"one/n": 1}]
