"""`dvc-mlflow ui`: serve the rows of this repository, on this machine only."""

import argparse
import os
import socket
import sys
from contextlib import suppress

from ..errors import ProjectError, ToolError, say, warn
from ..place import main_repository
from ..project import Project
from ..rows.result import table
from ..safe_path import python_path
from ..store import served
from ..store.store import Store, exists


def run(given: argparse.Namespace) -> int:
    """Serve the table, unless a server or another `ui` does, and print its address; return 0."""
    root = main_repository()
    with Project() as project:
        try:
            experiment, columns = table(project)
        except ProjectError as error:
            warn(f"{error}")
            experiment, columns = "", []
    if not exists(root):
        raise ToolError("there are no rows yet; run `dvc-mlflow record` or `dvc repro`")
    store = Store(root, experiment, columns, folder=project.folder)  # ends rows of dead processes
    if store.is_remote:
        say(f"All results: {store.url()}")
        return 0
    port = served.port(root, store.address)
    if port and served.answers(port, root, store.address):
        say(f"All results: {store.url()}")
        warn(f"a `dvc-mlflow ui` serves them already, on port {port}")
        return 0
    _check_free(given.port)
    _serve(store, given.port)
    return 0


def _say_when_it_answers(store: Store, port: int) -> None:
    """Print the table's address once this process serves it, from a process of its own."""
    sys.stdout.flush()
    if child := os.fork():
        os.waitpid(child, 0)
        return
    if os.fork():  # so that the server need not wait for its child's end
        os._exit(0)
    with suppress(KeyboardInterrupt, OSError):
        if served.answers(port, store.root, store.address):
            say(f"All results: {store.url()}")
            sys.stdout.flush()
    os._exit(0)


def _check_free(port: int) -> None:
    if problem := _problem(port):
        others = (other for other in range(port + 1, 65536) if not _problem(other))
        raise ToolError(f"port {port}: {problem}; use another, such as --port {next(others, 5000)}")


def _problem(port: int) -> str:
    """Return why nothing can listen on a port, or ""."""
    with socket.socket() as free:
        free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            free.bind((served.HOST, port))
        except OSError as error:
            return f"{error.strerror}"
    return ""


def _serve(store: Store, port: int) -> None:
    """Become MLflow's server.

    Its processes import from the working directory, where gunicorn also looks for a script. So that
    becomes `/`, which no checkout can fill.
    """
    env = {
        **os.environ,
        "PYTHONPATH": python_path(),
        "MLFLOW_BACKEND_STORE_URI": store.address,  # `ps` would show an argument
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # it leaves folders in /dev/shm
    }
    env.pop("MLFLOW_TRACKING_URI", None)
    command = [
        sys.executable,
        "-P",
        "-m",
        "mlflow",
        "ui",
        "--host",
        served.HOST,
        "--port",
        f"{port}",
    ]
    command += ["--artifacts-destination", f"{store.root}/mlartifacts"]
    warn(f"MLflow is starting on port {port}")
    served.note(store.root, store.address, port)
    _say_when_it_answers(store, port)
    os.chdir("/")
    os.execve(sys.executable, command, env)  # noqa: S606  (MLflow)
