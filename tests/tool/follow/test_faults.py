"""Whatever befalls the follower or its store, `dvc` and git notice nothing of it."""

import os
import signal
import socket
import sqlite3
from contextlib import AbstractContextManager, ExitStack, closing
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from support.following import SLOW, following, run_dvc, started, wait_for_rows, wait_for_store
from support.pipelines import Repository, evaluate, last, repository
from support.servers import answers, free_port, running, server_environment
from support.waiting import wait

pytestmark = [
    pytest.mark.pipeline,
    pytest.mark.filterwarnings("ignore"),  # warnings from MLflow
]


def files(project: Repository) -> dict[str, bytes]:
    """Return what the user has: all files outside .git, .dvc/tmp and the store."""
    own = (".git/", ".dvc/tmp/", "mlflow.db", "mlartifacts/")
    paths = (path for path in project.path.rglob("*") if path.is_file())
    found = {path.relative_to(project.path).as_posix(): path for path in paths}
    return {name: path.read_bytes() for name, path in found.items() if not name.startswith(own)}


def server(project: Repository, port: int) -> AbstractContextManager[None]:
    """Run MLflow's server on a port."""
    command = ["mlflow", "server", "--workers", "1", "--backend-store-uri", "sqlite:///served.db"]
    return running(
        [*command, "--host", "127.0.0.1", "--port", f"{port}"],
        lambda: answers(f"http://127.0.0.1:{port}/health"),
        end=signal.SIGKILL,
        cwd=project.path,
        env=server_environment(),
    )


def finished(address: str) -> list[Run]:
    """Return the rows with all results at a server."""
    client = MlflowClient(address)
    ids = [experiment.experiment_id for experiment in client.search_experiments()]
    rows = client.search_runs(ids)
    return [r for r in rows if r.info.status == "FINISHED" and "a/score" in r.data.metrics]


def test_nothing_changes(tmp_path: Path) -> None:
    """A pipeline that is followed leaves the files and prints the lines of one that is not."""
    project = repository(tmp_path / "project", SLOW)
    alone = project.copy_whole(tmp_path / "alone")
    with following(project):
        done = project.run("dvc", "repro", PYTHONHASHSEED="0")  # DVC prints the files of a set
        wait_for_rows(project, "FINISHED")
    plain = alone.run("dvc", "repro", PYTHONHASHSEED="0")
    assert (done.stdout, done.stderr) == (plain.stdout, plain.stderr)
    assert files(project) == files(alone)
    assert project.git("status", "--porcelain") == alone.git("status", "--porcelain")


def test_git_beside(tmp_path: Path) -> None:
    """No `git commit` fails because the follower looks."""
    project = repository(tmp_path / "project", {"a": evaluate("a", "raw.txt")})
    with following(project):
        text = "for i in $(seq 60); do echo new $i > raw.txt; git commit -qam $i || exit 1; done"
        project.run("sh", "-c", text)
        run_dvc(project, "repro", "-q")
        project.commit("The result")
        head = project.git("rev-parse", "HEAD")
        wait_for_rows(project, "FINISHED")
        wait_for_store(project, lambda: last(project).data.tags["mlflow.source.git.commit"] == head)


@pytest.mark.rest
def test_server_that_hangs(tmp_path: Path) -> None:
    """A server that does not answer holds up nothing; once it does, there are the rows."""
    project = repository(tmp_path / "project", SLOW)
    with closing(socket.create_server(("127.0.0.1", 0))) as silent:
        port = silent.getsockname()[1]
        address = f"http://127.0.0.1:{port}"
        with following(project, awaited="timed out", MLFLOW_TRACKING_URI=address) as follower:
            run_dvc(project, "repro", "-q")
            silent.close()
            with server(project, port):
                follower.wait_for("following ")
                (row,) = wait(lambda: finished(address))
    assert row.data.metrics == {"train/loss": 0.25, "a/score": 1}


@pytest.mark.rest
def test_server_that_stops(tmp_path: Path) -> None:
    """A server that stops while a stage runs is said once; the row is right when it is back."""
    project = repository(tmp_path / "project", SLOW)
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    with ExitStack() as first:
        first.enter_context(server(project, port))
        with following(project, MLFLOW_TRACKING_URI=address) as follower:
            with started(project, "dvc", "repro", MLFLOW_TRACKING_URI=address):
                follower.wait_for("is RUNNING")
                first.close()
            follower.wait_for("start it, or unset")
            with server(project, port):
                (row,) = wait(lambda: finished(address), 90)
                assert row.data.metrics == {"train/loss": 0.25, "a/score": 1}
                ids = [e.experiment_id for e in MlflowClient(address).search_experiments()]
                assert len(MlflowClient(address).search_runs(ids)) == 1


def test_two_followers(tmp_path: Path) -> None:
    """One follower is at work; another one says so, and goes on when the first has ended.

    The first makes the store, as one that is left half made holds nothing.
    """
    project = repository(tmp_path / "project", SLOW)
    (project.path / "mlflow.db").write_bytes(b"")
    os.utime(project.path / "mlflow.db", (1, 1))
    with following(project) as first, following(project) as second:
        second.wait_for(f"process {first.process.pid} follows this repository already")
        with started(project, "dvc", "repro"):
            wait_for_rows(project, "RUNNING")
            first.end(signal.SIGKILL)
        second.wait_for("a is FINISHED")
        wait_for_rows(project, "FINISHED")


def test_locked_store(tmp_path: Path) -> None:
    """A database that another process has locked delays a row, and nothing else."""
    project = repository(tmp_path / "project", SLOW)
    with following(project):
        with closing(sqlite3.connect(project.path / "mlflow.db")) as held:
            held.execute("BEGIN EXCLUSIVE")
            run_dvc(project, "repro", "-q")
            held.rollback()
        wait_for_store(project, lambda: finished(f"sqlite:///{project.path}/mlflow.db"), 90)
    (row,) = project.rows()
    assert row.data.metrics == {"train/loss": 0.25, "a/score": 1}
