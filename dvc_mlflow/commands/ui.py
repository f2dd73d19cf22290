"""`dvc-mlflow ui`: serve the rows of this repository, on this machine only."""

import argparse
import os
import socket
import sys

from ..errors import ProjectError, ToolError, say, warn
from ..project import Project
from ..repository import main_repository
from ..safe_path import python_path
from ..state import table
from ..store import Store, exists

_HOST = "127.0.0.1"


def run(given: argparse.Namespace) -> int:
    """Print the table's address, and serve it unless a server does; return the exit status."""
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
    address = store.url()
    is_remote = store.address.startswith("http")
    if not is_remote:
        _check_free(given.port)
        address = address.replace(":5000/", f":{given.port}/", 1)
    say(f"All results: {address}")
    sys.stdout.flush()
    if not is_remote:
        _serve(store, given.port)
    return 0


def _check_free(port: int) -> None:
    if problem := _problem(port):
        others = (other for other in range(port + 1, 65536) if not _problem(other))
        raise ToolError(f"port {port}: {problem}; use another, such as --port {next(others, 5000)}")


def _problem(port: int) -> str:
    """Return why nothing can listen on a port, or ""."""
    with socket.socket() as free:
        free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            free.bind((_HOST, port))
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
    command = [sys.executable, "-P", "-m", "mlflow", "ui", "--host", _HOST, "--port", f"{port}"]
    command += ["--artifacts-destination", f"{store.root}/mlartifacts"]
    os.chdir("/")
    os.execve(sys.executable, command, env)  # noqa: S606  (MLflow)
