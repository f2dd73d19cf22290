"""`record` refuses a server that is not a usable MLflow in one line, and shows no secret."""

import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from support.pipelines import Repository, served
from support.refusals import SECRET, files, refused_here
from support.servers import answers, free_port, running

pytestmark = [
    pytest.mark.pipeline,
    pytest.mark.filterwarnings("ignore"),  # warnings from MLflow
]


@pytest.fixture(scope="session")
def made() -> Repository:
    """A pipeline with a model that has run once, for all tests: `copy` it."""
    return served()


Answer = Callable[[BaseHTTPRequestHandler], None]


@contextmanager
def server(answer: Answer) -> Iterator[str]:
    """Run a web server that answers every request in the same way; yield its host and port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            with suppress(OSError):
                answer(self)

        do_POST = do_GET  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        http.daemon_threads = True
        http.block_on_close = False
        threading.Thread(target=http.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{http.server_port}"
        http.shutdown()


def text(content: str, status: int = 200) -> Answer:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        handler.send_header("Content-Type", "application/json")
        handler.send_header("Content-Length", str(len(content.encode())))
        handler.end_headers()
        handler.wfile.write(content.encode())

    return answer


def trickle(handler: BaseHTTPRequestHandler) -> None:
    """Begin a long answer, and send one byte of it per second."""
    handler.send_response(200)
    handler.send_header("Content-Length", "100000")
    handler.end_headers()
    for _ in range(100):
        handler.wfile.write(b" ")
        time.sleep(1)


def hang(handler: BaseHTTPRequestHandler) -> None:
    """Do not answer."""
    time.sleep(100)


def version(number: str, then: Answer) -> Answer:
    """Answer with a version first, and then in another way."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        (text(number) if handler.path.endswith("/version") else then)(handler)

    return answer


START = "; start it, or unset MLFLOW_TRACKING_URI"
CHECK = "; check that its address is that of an MLflow store"
LOGIN = "; check its user name and password"
ODD = '{"experiment": {"experiment_id": "1\\u001b[31m", "name": "\\u0007\\n\\n"}}'


@pytest.mark.rest
@pytest.mark.parametrize(
    ("answer", "end"),
    [
        (text("2.9.0"), CHECK),
        (text("[]"), CHECK),
        (text("null"), CHECK),
        (text('{"experiments": 7, "experiment": 7}'), CHECK),
        (text("<html>\x1b[31m\n\n</html>"), CHECK),
        (text("\x1b[31m\nno", 401), LOGIN),
        (version("3.5.0", text("You are not authenticated\n", 401)), LOGIN),
        (version("3.5.0", text("\x1b]0;title\x07\n\n", 403)), LOGIN),
        (version("3.5.0", text("no\n", 500)), START),
        (text(ODD), f"the server's answer has no run{CHECK}"),
        (hang, START),
        (trickle, CHECK),
        (version("3.5.0", hang), START),
    ],
    ids=[
        *("2.9", "list", "null", "numbers", "page", "401", "401-later", "403", "500", "odd"),
        *("hang", "trickle", "hang-later"),
    ],
)
def test_server_that_is_none(project: Repository, answer: Answer, end: str) -> None:
    """A server that is not MLflow, is too old, or does not answer is refused in one line."""
    before = files(project.path.parent)
    with server(answer) as host:
        line = refused_here(project, MLFLOW_TRACKING_URI=f"http://me:{SECRET}@{host}")
    assert line.startswith(f"MLflow at http://***@{host}: ")
    assert end in line
    assert files(project.path.parent) == before


@pytest.mark.rest
def test_web_server(project: Repository, tmp_path: Path) -> None:
    """A plain web server is refused."""
    port = free_port()
    command = [sys.executable, "-m", "http.server", "--bind", "127.0.0.1", f"{port}"]
    with running(command, lambda: answers(f"http://127.0.0.1:{port}"), cwd=tmp_path):
        line = refused_here(project, MLFLOW_TRACKING_URI=f"http://127.0.0.1:{port}")
    assert line.endswith(CHECK)


@pytest.mark.rest
@pytest.mark.parametrize(
    "address",
    [
        "http://me:{}@{}",
        "http://me:/{}@{}",
        "http://me:a@{}@{}",
        "http://{1}/?token={0}",
        "postgresql://me:{}@{}/rows",
        "postgresql://me:a/{}@{}/rows",
        "mysql://me:{}@{}/rows",
        "nothing://me:{}@{}/rows",
    ],
)
def test_no_secret_is_shown(project: Repository, address: str) -> None:
    """Neither a password nor a token of an address is shown when nothing listens there."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{closed.getsockname()[1]}"
        line = refused_here(project, MLFLOW_TRACKING_URI=address.format(SECRET, host))
    assert "***" in line


def test_file_store(project: Repository, tmp_path: Path) -> None:
    """If MLflow no longer supports file stores, the line says what to use instead."""
    said = project.tool("record", MLFLOW_TRACKING_URI=f"file://{tmp_path}/runs")
    if said.status:
        assert said.error.endswith("; check that its address is that of an MLflow store\n")
    assert said.error.count("\n") == said.status
