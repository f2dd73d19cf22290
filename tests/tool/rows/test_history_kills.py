"""An import that is killed, or runs beside another, records each result once."""

import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
from mlflow import MlflowClient

from support.clone import Clone, environment
from support.histories import by, history
from support.servers import serving

pytestmark = [
    pytest.mark.pipeline,
    pytest.mark.rest,
    pytest.mark.filterwarnings("ignore"),  # warnings from MLflow
]


def test_killed_at_any_time(tmp_path: Path) -> None:
    """An import that is killed again and again ends with each result once, and complete."""
    project = history(tmp_path / "project", 40)
    project.remove_store()
    command = [sys.executable, "-P", "-m", "dvc_mlflow", "record", "--all"]
    for i in range(6):
        process = subprocess.Popen(command, cwd=project.path, env=environment())
        time.sleep(2.2 + 0.35 * i)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert project.run(*command).returncode == 0
    rows = by("rate", project)
    assert len(rows) == 40
    for rate, row in rows.items():
        assert row.info.status == "FINISHED"
        assert {"dvc-mlflow.lock.train", "dvc-mlflow.lock.evaluate"} <= row.data.tags.keys()
        assert row.data.metrics["evaluate/score"] == int(rate) / 1000
        assert len(project.client.get_metric_history(row.info.run_id, "train/loss")) == 20


def test_two_at_once(tmp_path: Path) -> None:
    """Two imports at once record each result once."""
    project = history(tmp_path / "project", 40)
    project.remove_store()
    command = [sys.executable, "-P", "-m", "dvc_mlflow", "record", "--all"]
    running = [subprocess.Popen(command, cwd=project.path, env=environment()) for _ in range(2)]
    assert [process.wait() for process in running] == [0, 0]
    assert len(by("rate", project)) == 40


def test_into_a_server(tmp_path: Path) -> None:
    """A server gets each row once and complete, even after a kill and from two imports at once.

    For longer than a stage would wait, another program writes to the server's database.
    """
    project = history(tmp_path / "project", 40)
    project.remove_store()
    command = [sys.executable, "-P", "-m", "dvc_mlflow", "record", "--all"]
    database = tmp_path / "server.db"
    store = ("--backend-store-uri", f"sqlite:///{database}")
    with serving(Clone(tmp_path), "server", *store) as address:
        more = environment(MLFLOW_TRACKING_URI=address)
        with subprocess.Popen(command, cwd=project.path, env=more) as killed:
            time.sleep(4)
            killed.kill()
        with closing(sqlite3.connect(database, timeout=60)) as other:
            other.execute("BEGIN IMMEDIATE")
            both = [subprocess.Popen(command, cwd=project.path, env=more) for _ in range(2)]
            time.sleep(14)
        assert [process.wait() for process in both] == [0, 0]
        client = MlflowClient(address)
        rows = client.search_runs([e.experiment_id for e in client.search_experiments()])
        assert sorted(int(row.data.params["rate"]) for row in rows) == [*range(40)]
        for row in rows:
            score = int(row.data.params["rate"]) / 1000
            assert (row.info.status, row.data.metrics["evaluate/score"]) == ("FINISHED", score)
            assert {"dvc-mlflow.lock.train", "dvc-mlflow.lock.evaluate"} <= row.data.tags.keys()
            assert len(client.get_metric_history(row.info.run_id, "train/loss")) == 20
