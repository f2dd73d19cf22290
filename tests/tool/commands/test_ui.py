"""`dvc-mlflow ui`: the rows of this repository, on this machine only."""

import http.client
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import psutil
import pytest
from mlflow import MlflowClient

from dvc_mlflow.store import ui_guard
from support.following import Follower, following, held_by, server_of, started
from support.pipelines import Repository, Stages, evaluate, repository, train
from support.processes import wait
from support.rebuilding import rows_of
from support.servers import answers, free_port, other_user

pytestmark = pytest.mark.pipeline

META = {"mlflow": {"experiment": "flowers", "columns": ["-metrics.train/loss"]}}
SEARCH = "GET /ajax-api/2.0/mlflow/experiments/search?max_results=1"
FIT = train("raw.txt")
FIT["cmd"] = f"{held_by(Path('go'))}; {FIT['cmd']}"
EVALUATE = evaluate("a")
EVALUATE["cmd"] = f"sleep 1; {EVALUATE['cmd']}"  # a shorter stage can begin and end unseen
PIPELINE: Stages = {"train": {**FIT, "meta": META}, "a": EVALUATE}


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """A pipeline with its own experiment and a row, for all tests: copy it."""
    project = repository(tmp_path_factory.mktemp("made") / "project", PIPELINE, files={"go": ""})
    project.dvc("repro", "-q")
    project.commit("The results")
    assert project.record().status == 0
    return project


@pytest.fixture
def project(made: Repository, tmp_path: Path) -> Repository:
    """A copy of that pipeline with its store."""
    return made.copy_whole(tmp_path / "project")


@contextmanager
def shown(folder: Path, port: int, **more: str) -> Iterator[tuple[Follower, str, psutil.Process]]:
    """Run `dvc-mlflow ui` in a folder; yield it, its line, once it answers, and MLflow's process.

    In the end, all of it is gone.
    """
    command = ("ui", "--port", f"{port}")
    with following(Repository(folder), command=command, awaited="All results: ", **more) as ui:
        line = next(line for line in ui.lines if line.startswith("All results: "))
        assert answers(f"http://127.0.0.1:{port}/health")
        mlflow = server_of(ui.process.pid)
        processes = [mlflow, *mlflow.children(recursive=True)]
        yield ui, line, mlflow
        assert ui.end() == 0
        # Linux takes a moment to end what was killed.
        wait(lambda: not any(process.is_running() for process in processes))


def address(project: Repository, port: int, experiment: str = "flowers") -> str:
    """Return the line with the address of an experiment's table."""
    found = project.client.get_experiment_by_name(experiment)
    table = f"experiments/{found.experiment_id}/runs?viewStateShareKey=results"
    return f"All results: http://127.0.0.1:{port}/#/{table}&workflowType=machine_learning\n"


def status(port: int, request: str = SEARCH, **headers: str) -> int:
    """Return the status with which the server answers a request."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    with closing(connection):
        method, path = request.split()
        more = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, "x" if method == "POST" else None, more)
        return connection.getresponse().status


def listening(process: psutil.Process) -> set[str]:
    """Return the addresses on which a process and its children listen."""
    return {
        connection.laddr.ip
        for each in (process, *process.children(recursive=True))
        for connection in each.net_connections("tcp")
        if connection.status == "LISTEN"
    }


@pytest.mark.rest
def test_this_machine_only(project: Repository) -> None:
    """The server listens on this machine only, for its names, and runs nothing of the checkout.

    It follows: each row that begins or ends has a line after its own, and the rest is in a log. A
    stage that names another store has its row here, and a line says so. A second `ui` and `record`
    name its address.
    """
    trap = f"open({f'{project.path}/ran'!r}, 'w'); raise SystemExit('ran')"
    names = ["yaml.py", "mlflow/__init__.py", "uvicorn.py", "gunicorn.conf.py", "click.py"]
    project.write({f"{folder}{name}": trap for folder in ("", "inner/") for name in names})
    port, before = free_port(), {*Path("/").iterdir()}
    with shown(project.path / "inner", port) as (ui, line, mlflow):
        assert line == address(project, port)
        assert listening(mlflow) == {"127.0.0.1"}
        hosts = ["evil.example", "127.0.0.1.evil.example", f"evil.example:{port}"]
        # As after DNS rebinding, by which a web site would use its visitor's browser.
        assert [status(port, Host=host) for host in hosts] == [403] * 3
        assert status(port, Host=f"localhost:{port}") == 200
        said = project.tool("ui", "--port", f"{free_port()}")
        assert said.out == address(project, port)
        assert said.error == f"dvc-mlflow: a `dvc-mlflow ui` serves them already, on port {port}\n"
        project.set({"rate": 3})
        (project.path / "go").unlink()
        elsewhere = {"MLFLOW_TRACKING_URI": f"sqlite:///{project.path}/other.db"}
        with started(project, "dvc", "repro", **elsewhere):
            ui.wait_for("train names another store")
            project.write({"go": ""})
        ui.wait_for("a is FINISHED: row ")
        named = f"names another store, sqlite:///{project.path}/other.db; its row is here\n"
        assert [each.split(": ")[0] for each in ui.lines][:5] == [
            "All results",
            f"train {named}",
            "train is RUNNING",
            f"a {named}",
            "a is FINISHED",
        ]
        assert f"http://127.0.0.1:{port}/#/" in ui.lines[2]
        assert f"http://127.0.0.1:{port}/#/" in project.record().out
        assert project.rows()[-1].data.metrics == {"train/loss": 0.25, "a/score": 1}
        # On a server, here this one, there is no page of its own, and no password is shown.
        start, uri = ("ui",), f"http://me:s3cret@127.0.0.1:{port}"
        awaited = "All results: "
        with following(project, command=start, awaited=awaited, MLFLOW_TRACKING_URI=uri) as other:
            assert other.end() == 0
        assert other.lines[0] == address(project, port).replace("//", "//***@", 1)
        # It serves another store than this one.
        assert "http://" not in project.tool("record", **elsewhere).out
    assert "/health" in (project.path / ".git/dvc-mlflow/ui.log").read_text()
    assert not (project.path / "ran").exists()
    assert not (project.path / "inner" / "mlruns").exists()
    assert {*Path("/").iterdir()} == before  # where the server's processes are at work
    project.set({"rate": 4})
    project.dvc("repro", "-q")
    assert "run `dvc-mlflow ui`\n" in project.record().out


@pytest.mark.versions
@pytest.mark.skipif(os.getuid() != 0, reason="only root can be another user")
def test_its_user_only(project: Repository, tmp_path: Path) -> None:
    """Another user gets 403 for whatever it asks, also if it claims a connection of this user.

    This user and its scripts use the server as they would use MLflow's own. It ends though a
    request is unfinished. Without a store, it has made one of what git has, though dvc.yaml cannot
    be read; no password of the store's address shows.
    """
    project.set({"rate": 2})
    project.dvc("repro", "-q")
    project.commit("Rate 2")
    project.write({"dvc.yaml": "stages: ["})
    port, name = free_port(), "my:pass@word.db"
    more = {"MLFLOW_TRACKING_URI": f"sqlite:///../{name}", "MLFLOW_GUNICORN_OPTS": "--preload"}
    web_socket = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec_WebSocket_Version": "13"}
    web_socket["Sec_WebSocket_Key"] = f"{'A' * 22}=="
    with (
        shown(project.path, port, **more) as (ui, line, mlflow),
        socket.create_connection(("127.0.0.1", port)) as own,
    ):
        rows = rows_of(f"sqlite:///{tmp_path}/{name}")
        assert sorted(row.data.params["rate"] for row in rows) == ["1", "2"]
        run_id = rows[0].info.run_id
        assert f"http://127.0.0.1:{port}/#/experiments/" in line
        assert name in mlflow.environ()["MLFLOW_BACKEND_STORE_URI"]
        assert "pass@word" not in " ".join(mlflow.cmdline())
        file = f"run_uuid={run_id}&path=note.txt"
        upload = f"POST /ajax-api/2.0/mlflow/upload-artifact?{file}"
        requests = ["GET /", SEARCH, upload, f"GET /get-artifact?{file}"]
        claim = {"X_Forwarded_For": f"127.0.0.1:{own.getsockname()[1]}"}
        with other_user():
            assert [status(port, request) for request in requests] == [403] * 4
            assert [status(port, request, **claim) for request in requests] == [403] * 4
            assert status(port, "GET /", **web_socket) == 403
        assert [status(port, request) for request in requests] == [200] * 4
        client = MlflowClient(f"http://127.0.0.1:{port}")
        client.log_metric(run_id, "mine", 1)
        assert client.get_run(run_id).data.metrics["mine"] == 1
        own.sendall(f"{upload} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n".encode())
        assert ui.end(signal.SIGTERM) == 0


def test_refused(project: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    """A port in use, a damaged store and no project are named in a line.

    So is a system that does not tell whose a connection is.
    """
    with monkeypatch.context() as patched:
        patched.setattr(ui_guard, "TABLE", Path("/none"))
        said = project.tool("ui")
    assert (said.status, said.out, said.error.count("\n")) == (1, "", 1)
    assert said.error.startswith("dvc-mlflow: `ui` needs /none to refuse other users; ")
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = busy.getsockname()[1]
        said = project.tool("ui", "--port", f"{port}")
    line = f"dvc-mlflow: port {port}: Address already in use; choose another with --port\n"
    assert said == ("", line, 1)
    project.write({"mlflow.db": "damaged"})
    said = project.tool("ui")
    assert (said.status, said.out, said.error.count("\n")) == (1, "", 1)
    assert "check that its address is that of an MLflow store" in said.error
    before = {*project.path.iterdir()}
    project.run("rm", "-r", ".dvc", ".git")
    assert "is in no git repository" in project.tool("ui").error
    assert {*project.path.iterdir()} < before
