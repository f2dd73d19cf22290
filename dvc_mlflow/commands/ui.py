"""`dvc-mlflow ui`: serve the rows of this repository, on this machine only, and follow it."""

import argparse
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import IO

from .. import own_files, processes
from ..errors import ToolError, say, warn
from ..project import Project
from ..safe_path import python_path
from ..store import served
from ..store.store import Store
from .follow import add_history, follow, open_store, prepare, stopped

_ENDING = 3  # s that the server has for its end


def run(given: argparse.Namespace) -> int:
    """Record what git has, serve the table, print its address, and follow; return 0."""
    root = prepare()
    with Project() as project:
        store = open_store(project, root)
        port = served.port(root, store.address)
        if port and served.answers(port, root, store.address):
            say(f"All results: {store.url()}")
            warn(f"a `dvc-mlflow ui` serves them already, on port {port}")
            return 0
        if not store.is_remote:
            _check_free(given.port)
        add_history(project, root)
    if store.is_remote:
        say(f"All results: {store.url()}")
        follow(root, stopped().is_set)
        return 0
    _serve_and_follow(store, given.port)
    return 0


def _serve_and_follow(store: Store, port: int) -> None:
    """Serve the table, and follow until Ctrl-C, SIGTERM or the end of the server."""
    root, ends = store.root, stopped()
    log = root / own_files.FOLDER / "ui.log"
    own_files.write(f"{log}", b"")
    with log.open("ab") as file, _serving(store, port, file) as server:
        served.note(root, store.address, port)

        def is_over() -> bool:
            return ends.is_set() or server.poll() is not None

        if served.answers(port, root, store.address, is_over):
            say(f"All results: {store.url()}")
            follow(root, is_over)
        if not ends.is_set():
            raise ToolError(f"MLflow's server has ended or does not answer; {log} says why")


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


@contextmanager
def _serving(store: Store, port: int, log: IO[bytes]) -> Iterator[subprocess.Popen[bytes]]:
    """Run MLflow's server in the block; what it says goes to a file.

    Its processes import from the working directory, where they also look for a script. So that is
    `/`, which no checkout can fill.
    """
    env = {
        **os.environ,
        "PYTHONPATH": python_path(),
        "MLFLOW_BACKEND_STORE_URI": store.address,  # `ps` would show an argument
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # it leaves folders in /dev/shm
    }
    env.pop("MLFLOW_TRACKING_URI", None)
    command = [sys.executable, "-P", "-m", "mlflow", "ui", "--host", served.HOST]
    command += ["--port", f"{port}", "--workers", "1"]  # a person needs no more
    command += ["--artifacts-destination", f"{store.root}/mlartifacts"]
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
