"""`dvc-mlflow ui`: serve the rows of this repository, on this machine only, and follow it."""

import argparse
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from threading import Event
from typing import IO

from .. import processes
from ..errors import ToolError, say, warn
from ..place import artifacts_folder, own_folder
from ..project.project import Project
from ..store import ui_guard, ui_port
from ..store.store import Store
from .follow import add_history, follow, open_store, prepare, stopped

_STARTING = 120  # s that the server has for its start: it migrates an old store first
_ENDING = 2  # s that the server has for its end


def run(arguments: argparse.Namespace) -> int:
    """Record what git has, serve the table, print its address, and follow; return 0."""
    root, ends = prepare(), stopped()
    with suppress(KeyboardInterrupt):
        _show(root, arguments.port, ends)
    return 0


def _show(root: Path, free: int, ends: Event) -> None:
    """Do what `ui` does, with the port `free` for the page, until the event."""
    with Project() as project:
        store = open_store(project, root)
        port = ui_port.port(root, store.address)
        if port:
            say(f"All results: {store.url()}")
            warn(f"a `dvc-mlflow ui` serves them already, on port {port}")
            return
        if not store.is_remote:
            _check_servable(free)
        add_history(project, root)
    if store.is_remote:
        say(f"All results: {store.url()}")
        follow(root, ends.is_set)
    else:
        _serve_and_follow(store, free, ends)


def _serve_and_follow(store: Store, port: int, ends: Event) -> None:
    """Serve the table, and follow until Ctrl-C, SIGTERM or the end of the server."""
    root = store.root
    log = own_folder(root) / "ui.log"
    with log.open("wb") as file, _serving(store, port, file) as server:
        ui_port.note(root, store.address, port)

        def is_over() -> bool:
            return ends.is_set() or server.poll() is not None

        if _answers(port, is_over):
            say(f"All results: {store.url()}")
            follow(root, is_over)
        if not ends.is_set():
            raise ToolError(f"MLflow's server has ended or does not answer; {log} says why")


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


def _answers(port: int, is_over: Callable[[], bool]) -> bool:
    """Wait until the server answers; return False if it ends before, or hangs."""
    deadline = time.monotonic() + _STARTING
    while time.monotonic() < deadline and not is_over():
        with suppress(OSError), socket.create_connection((ui_port.HOST, port)):
            return True  # uvicorn listens once MLflow's app has started
        time.sleep(0.1)
    return False


@contextmanager
def _serving(store: Store, port: int, log: IO[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    """Run MLflow's server in the block; what it says goes to a file.

    Its processes import from the working directory, where they also look for a script. So that is
    `/`, which no checkout can fill.
    """
    env = {
        **os.environ,
        "MLFLOW_BACKEND_STORE_URI": store.address,  # `ps` would show an argument
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # it leaves folders in /dev/shm
    }
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_GUNICORN_OPTS"):
        env.pop(name, None)
    command = [sys.executable, "-P", "-m", "mlflow", "ui", "--host", ui_port.HOST]
    command += ["--port", f"{port}", "--workers", "1"]  # a person needs no more
    # By such a header, a client could name somebody else's connection as its own.
    command += ["--app-name", "dvc-mlflow", "--uvicorn-opts", "--no-proxy-headers"]
    command += ["--artifacts-destination", f"{artifacts_folder(store.root)}"]
    with subprocess.Popen(
        command,
        cwd="/",
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        start_new_session=True,  # Ctrl-C is for this process, which ends it
        preexec_fn=partial(processes.end_with_parent, signal.SIGTERM),  # noqa: PLW1509  (no thread)
    ) as server:
        try:
            yield server
        finally:
            with suppress(subprocess.TimeoutExpired, ProcessLookupError):
                os.killpg(server.pid, signal.SIGTERM)
                server.wait(_ENDING)
            with suppress(ProcessLookupError):
                os.killpg(server.pid, signal.SIGKILL)
