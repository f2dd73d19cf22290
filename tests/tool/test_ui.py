"""`dvc-mlflow ui`: the rows of this repository, on this machine only."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from mlflow import MlflowClient

from clone import environment
from dvc_mlflow import processes
from pipelines import Repository, Stages, evaluate, repository, train
from servers import answers, free_port, serving

pytestmark = [
    pytest.mark.pipeline,
    pytest.mark.filterwarnings("ignore"),  # warnings from MLflow
]

META = {"mlflow": {"experiment": "flowers", "columns": ["-metrics.train/loss"]}}
PIPELINE: Stages = {"train": {**train("raw.txt"), "meta": META}, "a": evaluate("a")}


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """A pipeline with its own experiment and a row, for all tests: copy it."""
    project = repository(tmp_path_factory.mktemp("made") / "project", PIPELINE)
    project.dvc("repro", "-q")
    project.commit("The results")
    assert project.record().status == 0
    return project


@pytest.fixture
def project(made: Repository, tmp_path: Path) -> Repository:
    """A copy of that pipeline with its store."""
    return Repository(shutil.copytree(made.path, tmp_path / "project", symlinks=True))


@contextmanager
def shown(folder: Path, port: int, **more: str) -> Iterator[tuple[str, psutil.Process]]:
    """Run `dvc-mlflow ui` in a folder; yield its first line, and MLflow's process."""
    with subprocess.Popen(
        ["dvc-mlflow", "ui", "--port", f"{port}"],
        cwd=folder,
        env=environment(**more),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    ) as ui:
        try:
            assert ui.stdout
            line = ui.stdout.readline()
            mlflow = psutil.Process(ui.pid)
            while "mlflow" not in mlflow.cmdline():  # it replaces dvc-mlflow
                time.sleep(0.05)
            yield line, mlflow
        finally:
            os.killpg(ui.pid, signal.SIGKILL)


def address(project: Repository, port: int, experiment: str = "flowers") -> str:
    """Return the line with the address of an experiment's table."""
    found = project.client.get_experiment_by_name(experiment)
    table = f"experiments/{found.experiment_id}/runs?viewStateShareKey=results"
    return f"All results: http://127.0.0.1:{port}/#/{table}&workflowType=machine_learning\n"


def listening(process: psutil.Process) -> set[str]:
    """Return the addresses on which a process and its children listen."""
    return {
        connection.laddr.ip
        for each in (process, *process.children(recursive=True))
        for connection in each.net_connections("tcp")
        if connection.status == "LISTEN"
    }


def test_this_machine_only(project: Repository) -> None:
    """The server listens on this machine only, and runs nothing of the checkout."""
    trap = f"open({f'{project.path}/ran'!r}, 'w'); raise SystemExit('ran')"
    names = ["yaml.py", "mlflow/__init__.py", "uvicorn.py", "gunicorn.conf.py", "click.py"]
    project.write({f"{folder}{name}": trap for folder in ("", "inner/") for name in names})
    port = free_port()
    path = os.pathsep.join(["", ".", f"{project.path}/inner"])
    before = {*Path("/").iterdir()}
    with shown(project.path / "inner", port, PYTHONPATH=path) as (line, mlflow):
        assert line == address(project, port)
        while not answers(f"http://127.0.0.1:{port}/health"):
            assert mlflow.status() != psutil.STATUS_ZOMBIE
            time.sleep(0.1)
        assert listening(mlflow) == {"127.0.0.1"}
    assert not (project.path / "ran").exists()
    assert not (project.path / "inner" / "mlruns").exists()
    assert {*Path("/").iterdir()} == before  # where the server's processes are at work


@pytest.mark.parametrize("place", ["inner", "worktree", "database"])
def test_store_of_the_stages(project: Repository, tmp_path: Path, place: str) -> None:
    """`ui` shows the rows from a subfolder, from a git worktree and with MLFLOW_TRACKING_URI."""
    port, folder, more = free_port(), project.path / "inner", {}
    folder.mkdir()
    store = f"sqlite:///{project.path}/mlflow.db"
    if place == "worktree":
        folder = tmp_path / "tree"
        project.git("worktree", "add", "-q", f"{folder}")
    elif place == "database":
        (project.path / "mlflow.db").rename(tmp_path / "my:pass@word.db")
        store = f"sqlite:///{project.path}/../my:pass@word.db"
        more = {"MLFLOW_TRACKING_URI": "sqlite:///../my:pass@word.db"}
    with shown(folder, port, **more) as (line, mlflow):
        assert line.startswith(f"All results: http://127.0.0.1:{port}/#/experiments/1/runs?")
        assert mlflow.environ()["MLFLOW_BACKEND_STORE_URI"] == store
        assert "mlflow.db" not in " ".join(mlflow.cmdline())
        assert "pass@word" not in " ".join(mlflow.cmdline())
    assert not (tmp_path / "tree" / "mlflow.db").exists()


def test_rows_of_dead_processes(project: Repository) -> None:
    """The row of a killed stage does not stay RUNNING; that of a live one does."""
    client, (row,) = project.client, project.rows()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as live:
        ids = []
        for mark in ("1@1", processes.process(live.pid)):
            tags = {**processes.tags(project.path), processes.PROCESS: mark}
            ids.append(client.create_run(row.info.experiment_id, tags=tags).info.run_id)
        with shown(project.path, free_port()):
            found = [client.get_run(run_id).info.status for run_id in ids]
        assert found == ["KILLED", "RUNNING"]
        live.kill()


def test_port_in_use(project: Repository) -> None:
    """A port in use is refused in one line that names a free one; so is an invalid port."""
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = busy.getsockname()[1]
        said = project.tool("ui", "--port", f"{port}")
    start = f"dvc-mlflow: port {port}: Address already in use; use another, such as --port "
    assert (said.status, said.out) == (1, "")
    assert said.error.startswith(start)
    with socket.create_server(("127.0.0.1", int(said.error.removeprefix(start)))):
        pass
    for wrong in ("0", "65536", "-1", "x", "9" * 5000):
        done = project.run("dvc-mlflow", "ui", "--port", wrong, check=False)
        assert done.returncode == 2
        assert "--port" in done.stderr.splitlines()[-1]


def test_no_store(project: Repository) -> None:
    """Without a store, one line says how to make one, and nothing is created."""
    project.remove_store()
    before = {*project.path.iterdir()}
    cure = "run `dvc-mlflow record` or `dvc repro`"
    assert project.tool("ui") == ("", f"dvc-mlflow: there are no rows yet; {cure}\n", 1)
    assert {*project.path.iterdir()} == before
    project.run("rm", "-r", ".dvc", ".git")
    assert "not inside of a DVC repository" in project.tool("ui").error
    assert {*project.path.iterdir()} < before


@pytest.mark.parametrize("damage", ["pipeline", "store"])
def test_damaged(project: Repository, damage: str) -> None:
    """With a broken dvc.yaml, the default table is shown; a broken store is named."""
    if damage == "store":
        project.write({"mlflow.db": "damaged"})
        said = project.tool("ui")
        assert (said.status, said.out, said.error.count("\n")) == (1, "", 1)
        assert "restore a backup, or move it away to start a new store" in said.error
        return
    project.write({"dvc.yaml": "stages: ["})
    port = free_port()
    with shown(project.path, port) as (line, _):
        assert line == address(project, port, "project")


@pytest.mark.rest
def test_server(project: Repository, tmp_path: Path) -> None:
    """With a tracking server, only the address there is printed, without the password."""
    with serving(Repository(tmp_path), "server", "--workers", "1") as server:
        uri = server.replace("://", "://me:s3cret@")
        done = project.run("dvc-mlflow", "ui", MLFLOW_TRACKING_URI=uri)
        number = MlflowClient(server).get_experiment_by_name("flowers").experiment_id
    table = f"experiments/{number}/runs?viewStateShareKey=results&workflowType=machine_learning"
    assert done.stdout == f"All results: {uri.replace('me:s3cret', '***')}/#/{table}\n"
    assert done.stderr == ""
    done = project.run("dvc-mlflow", "ui", check=False, MLFLOW_TRACKING_URI=server)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert done.stderr.startswith(f"dvc-mlflow: MLflow at {server}: ")
