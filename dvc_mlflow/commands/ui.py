"""`dvc-mlflow ui`: serve the rows of this repository, on this machine only, and follow it."""

import argparse
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from typing import IO

from .. import processes
from ..errors import ToolError, say, warn
from ..place import artifacts_folder, own_folder
from ..project.project import Project
from ..store import ui_guard, ui_port
from ..store.store import Store
from .follow import add_history, follow, on_signals, open_store, prepare

_NOT_FOR_SERVER = ("MLFLOW_TRACKING_URI", "MLFLOW_GUNICORN_OPTS")
_STARTING = 120  # s that the server has for its start: it migrates an old store first


def run(arguments: argparse.Namespace) -> int:
    """Record what git has, serve the table, print its address, and follow; return 0."""
    root, old = prepare()
    with Project() as project:
        store = open_store(project, root)
        if port := ui_port.port(root, store.address):
            say(f"All results: {store.url()}")
            warn(f"a `dvc-mlflow ui` serves them already, on port {port}")
            return 0
        if not store.is_remote:
            _check_servable(arguments.port)
        add_history(project, root)
    if store.is_remote:
        say(f"All results: {store.url()}")
        follow(root, old, lambda: False)
    else:
        _serve_and_follow(store, old, arguments.port)
    return 0


def _serve_and_follow(store: Store, old: Sequence[str], port: int) -> None:
    """Serve the table, and follow until the end of the server: Ctrl-C and SIGTERM end both."""
    root = store.root
    log = own_folder(root) / "ui.log"
    with log.open("wb") as file:
        server = _started(store, port, file)

    def end(*_: object) -> None:
        _end(server)
        os._exit(0)

    on_signals(end)
    try:
        ui_port.note(root, store.address, port)
        if _answers(port, server):
            say(f"All results: {store.url()}")
            follow(root, old, lambda: server.poll() is not None)
    finally:
        _end(server)
    raise ToolError(f"MLflow's server has ended or does not answer; {log} says why")


def _end(server: subprocess.Popen[bytes]) -> None:
    """End a server with all its processes, which may have gone."""
    with suppress(ProcessLookupError):
        os.killpg(server.pid, signal.SIGKILL)


def _check_servable(port: int) -> None:
    """Raise `ToolError` if the server could not refuse other users, or nothing can use its port.

    On a port in use, somebody else's server would answer.
    """
    if not ui_guard.TABLE.exists():
        need = f"`ui` needs {ui_guard.TABLE} to refuse other users"
        raise ToolError(f"{need}; on this system, run `dvc-mlflow follow` and `mlflow ui` instead")
    with socket.socket() as free:
        free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            free.bind((ui_port.HOST, port))
        except OSError as error:
            raise ToolError(f"port {port}: {error.strerror}; choose another with --port") from None


def _answers(port: int, server: subprocess.Popen[bytes]) -> bool:
    """Wait until the server answers; return False if it ends before, or hangs."""
    deadline = time.monotonic() + _STARTING
    while time.monotonic() < deadline and server.poll() is None:
        with suppress(OSError), socket.create_connection((ui_port.HOST, port)):
            return True  # uvicorn listens once MLflow's app has started
        time.sleep(0.1)
    return False


def _started(store: Store, port: int, log: IO[bytes]) -> subprocess.Popen[bytes]:
    """Start MLflow's server; what it says goes to a file.

    Its processes import from the working directory, where they also look for a script. So that is
    `/`, which no checkout can fill.
    """
    env = {key: value for key, value in os.environ.items() if key not in _NOT_FOR_SERVER}
    env["MLFLOW_BACKEND_STORE_URI"] = store.address  # `ps` would show an argument
    env["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"  # it leaves folders in /dev/shm
    command = [sys.executable, "-P", "-m", "mlflow", "ui", "--host", ui_port.HOST]
    command += ["--port", f"{port}", "--workers", "1"]  # a person needs no more
    # By such a header, a client could name somebody else's connection as its own.
    command += ["--app-name", "dvc-mlflow", "--uvicorn-opts", "--no-proxy-headers"]
    command += ["--artifacts-destination", f"{artifacts_folder(store.root)}"]
    return subprocess.Popen(
        command,
        cwd="/",
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        start_new_session=True,  # Ctrl-C is for this process, which ends it
        preexec_fn=partial(processes.end_with_parent, signal.SIGTERM),  # noqa: PLW1509  (no thread)
    )
