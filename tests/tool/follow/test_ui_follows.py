"""`dvc-mlflow ui` follows: a line for each row that begins or ends, and Ctrl-C ends all of it."""

import signal
import time
from pathlib import Path

import pytest

from support.following import SLOW, following, server_of, wait_for_rows
from support.pipelines import repository
from support.servers import free_port

pytestmark = [
    pytest.mark.pipeline,
    pytest.mark.filterwarnings("ignore"),  # warnings from MLflow
]


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM])
def test_follows(tmp_path: Path, end: signal.Signals) -> None:
    """After the address, each row that begins or ends has a line; the rest is in a log."""
    project = repository(tmp_path / "project", SLOW)
    port = free_port()
    command = ("ui", "--port", f"{port}")
    with following(project, command=command, awaited="All results: ") as ui:
        server = server_of(ui.process.pid)
        processes = [server, *server.children(recursive=True)]
        project.run("dvc", "repro", "-q")
        ui.wait_for("a is FINISHED: row ")
        began = time.monotonic()
        assert ui.end(end) == 0
        assert time.monotonic() - began < 10
    assert [line.split(": ")[0] for line in ui.lines] == [
        *("All results", "prepare is RUNNING", "train is FINISHED", "a is FINISHED")
    ]
    assert f"http://127.0.0.1:{port}/#/experiments/" in ui.lines[1]
    assert not any(process.is_running() for process in processes)
    assert "/health" in (project.path / ".dvc/tmp/dvc-mlflow/ui.log").read_text()
    wait_for_rows(project, "FINISHED")


def test_another_store(tmp_path: Path) -> None:
    """A stage that names another store has its row here, and a line says so."""
    project = repository(tmp_path / "project", SLOW)
    other = f"sqlite:///{tmp_path}/other.db"
    with following(project) as follower:
        project.run("dvc", "repro", "-q", MLFLOW_TRACKING_URI=other)
        follower.wait_for(f"prepare names another store, {other}; its row is here")
        wait_for_rows(project, "FINISHED")
