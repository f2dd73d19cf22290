"""`dvc-mlflow ui`: the rows of this repository, on this machine only."""

import http.client
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import psutil
import pytest
from mlflow import MlflowClient

from dvc_mlflow import processes
from dvc_mlflow.pipeline.tags import PROCESS
from support.following import following, server_of
from support.pipelines import Repository, Stages, evaluate, repository, train
from support.servers import answers, free_port, serving
from support.waiting import wait

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
    return made.copy_whole(tmp_path / "project")


@contextmanager
def shown(folder: Path, port: int, **more: str) -> Iterator[tuple[str, psutil.Process]]:
    """Run `dvc-mlflow ui` in a folder; yield its line, once it answers, and MLflow's process."""
    command = ("ui", "--port", f"{port}")
    with following(Repository(folder), command=command, awaited="All results: ", **more) as ui:
        line = next(line for line in ui.lines if line.startswith("All results: "))
        assert answers(f"http://127.0.0.1:{port}/health")
        yield line, server_of(ui.process.pid)


def address(project: Repository, port: int, experiment: str = "flowers") -> str:
    """Return the line with the address of an experiment's table."""
    found = project.client.get_experiment_by_name(experiment)
    table = f"experiments/{found.experiment_id}/runs?viewStateShareKey=results"
    return f"All results: http://127.0.0.1:{port}/#/{table}&workflowType=machine_learning\n"


def status(port: int, host: str) -> int:
    """Return how the server answers a request that names another host, as after DNS rebinding."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    with closing(connection):
        path = "/ajax-api/2.0/mlflow/experiments/search?max_results=1"
        connection.request("GET", path, headers={"Host": host})
        return connection.getresponse().status


def listening(process: psutil.Process) -> set[str]:
    """Return the addresses on which a process and its children listen."""
    return {
        connection.laddr.ip
        for each in (process, *process.children(recursive=True))
        for connection in each.net_connections("tcp")
        if connection.status == "LISTEN"
    }


def test_this_machine_only(project: Repository) -> None:
    """The server listens on this machine only, for its names, and runs nothing of the checkout."""
    trap = f"open({f'{project.path}/ran'!r}, 'w'); raise SystemExit('ran')"
    names = ["yaml.py", "mlflow/__init__.py", "uvicorn.py", "gunicorn.conf.py", "click.py"]
    project.write({f"{folder}{name}": trap for folder in ("", "inner/") for name in names})
    port = free_port()
    before = {*Path("/").iterdir()}
    with shown(project.path / "inner", port) as (line, mlflow):
        assert line == address(project, port)
        assert not [child for child in mlflow.children() if child.status() == psutil.STATUS_ZOMBIE]
        assert listening(mlflow) == {"127.0.0.1"}
        hosts = ["evil.example", "127.0.0.1.evil.example", f"evil.example:{port}"]
        assert [status(port, host) for host in hosts] == [403] * 3
        assert status(port, f"localhost:{port}") == 200
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
            tags = {**processes.tags(project.path), PROCESS: mark}
            ids.append(client.create_run(row.info.experiment_id, tags=tags).info.run_id)
        with shown(project.path, free_port()):
            found = [client.get_run(run_id).info.status for run_id in ids]
        assert found == ["KILLED", "RUNNING"]
        live.kill()


def test_port_in_use(project: Repository) -> None:
    """A port in use is refused in one line that names the cure; so is an invalid port."""
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = busy.getsockname()[1]
        said = project.tool("ui", "--port", f"{port}")
    line = f"dvc-mlflow: port {port}: Address already in use; choose another with --port\n"
    assert said == ("", line, 1)
    for wrong in ("0", "65536", "-1", "x", "9" * 5000):
        done = project.run("dvc-mlflow", "ui", "--port", wrong, check=False)
        assert done.returncode == 2
        assert "--port" in done.stderr.splitlines()[-1]


def test_one_that_runs(project: Repository) -> None:
    """A second `ui` names the first one's address and ends, and so does `record`."""
    port = free_port()
    assert "http://" not in project.record("--all", "--deleted").out
    with shown(project.path, port):
        said = project.tool("ui", "--port", f"{free_port()}")
        assert said.out == address(project, port)
        assert said.error == f"dvc-mlflow: a `dvc-mlflow ui` serves them already, on port {port}\n"
        project.set({"rate": 3})
        project.dvc("repro", "-q")
        project.commit("The results")
        wait(lambda: len(project.rows()) == 2)  # that other one follows
        # It serves another store than this one.
        elsewhere = {"MLFLOW_TRACKING_URI": f"sqlite:///{project.path}/other.db"}
        assert "http://" not in project.tool("record", **elsewhere).out
    project.set({"rate": 4})
    project.dvc("repro", "-q")
    assert "run `dvc-mlflow ui`\n" in project.record().out


def test_history(project: Repository) -> None:
    """Without a store, `ui` records what git has; the next one, what is new of it."""
    project.remove_store()
    for rate in (2, 3):
        project.set({"rate": rate})
        project.dvc("repro", "-q")
        project.commit(f"Rate {rate}")
    with shown(project.path, free_port()):
        rates = sorted(row.data.params["rate"] for row in project.rows())
    assert rates == ["1", "2", "3"]
    for rate in (4, 5):
        project.set({"rate": rate})
        project.dvc("repro", "-q")
        project.commit(f"Rate {rate}")
    project.client.delete_run(project.rows()[0].info.run_id)
    with shown(project.path, free_port()):
        rates = sorted(row.data.params["rate"] for row in project.rows())
    assert rates == ["2", "3", "4", "5"]


def test_without_git(project: Repository) -> None:
    """Without git, the results of the checkout are recorded, served and followed."""
    project.remove_store()
    project.run("rm", "-r", ".git")
    project.dvc("config", "core.no_scm", "true")
    with shown(project.path, free_port()):
        wait(lambda: [row.info.status for row in project.rows()] == ["FINISHED"])
        project.set({"rate": 2})
        project.dvc("repro", "-q")
        wait(lambda: [row.info.status for row in project.rows()] == ["FINISHED"] * 2)


def test_no_project(project: Repository) -> None:
    """Outside of DVC projects, one line says so, and nothing is created."""
    before = {*project.path.iterdir()}
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
        start, more = ("ui",), {"MLFLOW_TRACKING_URI": uri}
        with following(project, command=start, awaited="All results: ", **more) as ui:
            project.set({"rate": 2})
            project.dvc("repro", "-q")
            client = MlflowClient(server)
            number = client.get_experiment_by_name("flowers").experiment_id
            wait(lambda: len(client.search_runs([number], "status = 'FINISHED'")) == 2)
            assert ui.end() == 0
    table = f"experiments/{number}/runs?viewStateShareKey=results&workflowType=machine_learning"
    (line,) = [line for line in ui.lines if line.startswith("All")]
    assert line == f"All results: {uri.replace('me:s3cret', '***')}/#/{table}\n"
    done = project.run("dvc-mlflow", "ui", check=False, MLFLOW_TRACKING_URI=server)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert done.stderr.startswith(f"dvc-mlflow: MLflow at {server}: ")
