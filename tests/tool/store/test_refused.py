"""If `record` cannot use its store, one line names the cure, and the store stays as it is."""

import os
import re
import shutil
import socket
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from support.clone import STORES, contents
from support.kills import immutable, small_disk
from support.pipelines import Repository, served
from support.refusals import SECRET, recorded_once, refused_here

pytestmark = pytest.mark.pipeline

CHECK = "; check that its address is that of an MLflow store"
LOGIN = "; check its user name and password"
ROOM = "; make room on its disk"
START = "; start it, or unset MLFLOW_TRACKING_URI"
UPGRADE = "; back it up, and run `mlflow db upgrade` on it"
WRITABLE = "; make it writable for you"


@pytest.fixture(scope="session")
def made() -> Repository:
    """A pipeline with a model that has run once, for all tests: `copy` it."""
    return served()


def to_older(database: Path) -> None:
    """Make a database look like one of MLflow 3.0, which MLflow would migrate."""
    with closing(sqlite3.connect(database)) as store, store:
        store.execute("UPDATE alembic_version SET version_num = '6953534de441'")
        store.execute("DROP TABLE logged_model_tags")


UNUSABLE: list[tuple[Callable[[Path], object], str]] = [
    (lambda path: path.write_bytes(os.urandom(10_000)), CHECK),
    (to_older, UPGRADE),
]


def test_unusable_database(tmp_path: Path) -> None:
    """A damaged database, or one of another MLflow, is left as it is; the line names the cure."""
    recorded = recorded_once(tmp_path)
    for number, (change, cure) in enumerate(UNUSABLE):
        database = recorded.copy_whole(tmp_path / f"{number}").path / "mlflow.db"
        change(database)
        before = database.read_bytes()
        line = refused_here(Repository(database.parent))
        assert line.startswith(f"MLflow at sqlite:///{database}: ")
        assert line.endswith(cure)
        assert database.read_bytes() == before


def test_no_folder(project: Repository, tmp_path: Path) -> None:
    """No database is created in a missing folder, which may be an unmounted disk.

    If the repository itself is read-only, `record` says so.
    """
    line = refused_here(project, MLFLOW_TRACKING_URI=f"sqlite:///{tmp_path}/none/rows.db")
    cause = f"there is no folder {tmp_path}/none"
    assert line == f"MLflow at sqlite:///{tmp_path}/none/rows.db: {cause}{CHECK}"
    assert not (tmp_path / "none").exists()
    project.remove_store()
    own = project.path / ".git/dvc-mlflow"
    shutil.rmtree(own, ignore_errors=True)
    own.mkdir()
    for folder in (".", ".git/dvc-mlflow"):
        with immutable(project.path / folder):
            assert re.search("unable to open|not permitted|denied", refused_here(project))


@pytest.mark.rest
def test_closed_database(tmp_path: Path) -> None:
    """A database that is read-only, or that another process holds, is named with the cure.

    If it lacks nothing, it may be read-only.
    """
    project = recorded_once(tmp_path)
    database = project.path / "mlflow.db"
    with immutable(database):
        said = project.record()
        assert (said.status, said.error) == (0, "")
        project.set({"a": 2})
        project.dvc("repro", "-q")
        # This process has opened it to write.
        done = project.run("dvc-mlflow", "record", check=False)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"dvc-mlflow: MLflow at sqlite:///{database}: ")
    assert line.endswith(WRITABLE)
    with closing(sqlite3.connect(database)) as holder:
        holder.execute("BEGIN EXCLUSIVE")
        line = refused_here(project)
    assert line.endswith(": database is locked; run it again when it is free")
    assert project.record().status == 0
    assert sorted(row.data.metrics["a/score"] for row in project.rows()) == [1, 2]


@pytest.mark.rest
def test_full_disk(project: Repository, tmp_path: Path) -> None:
    """A full disk is reported; once there is room, `record` makes exactly one row."""
    with small_disk(tmp_path / "disk", "256k") as disk:
        line = refused_here(project, MLFLOW_TRACKING_URI=f"sqlite:///{disk}/rows.db")
        assert not [*disk.iterdir()]
    assert line.endswith(ROOM)
    with small_disk(project.path / "mlartifacts", "4k"):
        assert refused_here(project).endswith(ROOM)
    assert project.record().status == 0
    (row,) = project.rows()
    assert row.info.status == "FINISHED"
    assert "model.txt" in project.artifacts(row)


@contextmanager
def server(status: int, text: str) -> Iterator[str]:
    """Run a web server that answers every request alike; yield its host and port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self.send_response(status)
            self.send_header("Content-Length", f"{len(text)}")
            self.end_headers()
            self.wfile.write(text.encode())

        do_POST = do_GET  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        http.daemon_threads = True
        http.block_on_close = False
        threading.Thread(target=http.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{http.server_port}"
        http.shutdown()


ODD = '{"experiment": {"experiment_id": "1\\u001b[31m", "name": "\\u0007\\n\\n"}}'


@pytest.mark.rest
@pytest.mark.parametrize(
    ("status", "text", "end"),
    [
        (200, "<html>\x1b[31m\n\n</html>", CHECK),
        (200, ODD, f"the server's answer has no run{CHECK}"),
        (401, "\x1b[31m\nno", LOGIN),
    ],
)
def test_server_that_is_none(project: Repository, status: int, text: str, end: str) -> None:
    """A server that is not MLflow, or lets nobody in, is refused in one line."""
    before = contents(project.path.parent, *STORES)
    with server(status, text) as host:
        line = refused_here(project, MLFLOW_TRACKING_URI=f"http://me:{SECRET}@{host}")
    assert line.startswith(f"MLflow at http://***@{host}: ")
    assert line.endswith(end)
    assert contents(project.path.parent, *STORES) == before


@pytest.mark.rest
def test_no_secret_is_shown(project: Repository) -> None:
    """When nothing listens at an address, one line says so, without its password or token."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{closed.getsockname()[1]}"
        for address in (
            f"http://me:/{SECRET}@{host}",
            f"http://me:a@{SECRET}@{host}",
            f"http://{host}/?token={SECRET}",
            f"postgresql://me:a/{SECRET}@{host}/rows",
            f"nothing://me:{SECRET}@{host}/rows",
        ):
            line = refused_here(project, MLFLOW_TRACKING_URI=address)
            assert "***" in line
            assert line.endswith(START) or not address.startswith("http")
