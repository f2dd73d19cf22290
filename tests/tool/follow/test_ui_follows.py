"""`dvc-mlflow ui` follows: a line for each row that begins or ends, and Ctrl-C ends all of it."""

import signal
from pathlib import Path

import pytest

from support.following import SLOW, following, run_dvc, server_of, wait_for_rows
from support.pipelines import repository
from support.servers import free_port

pytestmark = [
    pytest.mark.pipeline,
    pytest.mark.filterwarnings("ignore"),  # warnings from MLflow
]


def test_follows(tmp_path: Path) -> None:
    """After the address, each row that begins or ends has a line; the rest is in a log.

    A stage that names another store has its row here, and a line says so.
    """
    project = repository(tmp_path / "project", SLOW)
    other = f"sqlite:///{tmp_path}/other.db"
    for end in (signal.SIGINT, signal.SIGTERM):
        port = free_port()
        command = ("ui", "--port", f"{port}")
        with following(project, command=command, awaited="All results: ") as ui:
            server = server_of(ui.process.pid)
            processes = [server, *server.children(recursive=True)]
            if end == signal.SIGINT:
                run_dvc(project, "repro", "-q", MLFLOW_TRACKING_URI=other)
                ui.wait_for("a is FINISHED: row ")
            assert ui.end(end) == 0
            lines = [line.split(": ")[0] for line in ui.lines]
            address = ui.lines[1] if end == signal.SIGINT else ui.lines[0]
        assert f"http://127.0.0.1:{port}/#/experiments/" in address
        assert not any(process.is_running() for process in processes)
        if end == signal.SIGINT:
            assert lines == [
                "All results",
                "prepare is RUNNING",
                f"prepare names another store, {other}; its row is here\n",
                *("train is FINISHED", "a is FINISHED"),
            ]
    assert "/health" in (project.path / ".dvc/tmp/dvc-mlflow/ui.log").read_text()
    wait_for_rows(project, "FINISHED")
