"""Run servers for tests, and end them together with their workers."""

import os
import secrets
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from support.clone import Clone, environment


def free_port() -> int:
    """Return a port that nothing on this machine uses, below those that Linux gives to clients."""
    while True:
        port = 20_000 + secrets.randbelow(12_000)
        with suppress(OSError), socket.socket() as listener:
            listener.bind(("127.0.0.1", port))
            return port


@contextmanager
def other_user(uid: int = 65534) -> Iterator[None]:
    """Let root be another user in the block, whose sockets stay that user's."""
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(0)


def answers(url: str) -> bool:
    """Whether a web server answers, with any status."""
    with suppress(OSError):
        try:
            urllib.request.urlopen(url, timeout=1).close()  # noqa: S310
        except urllib.error.HTTPError:
            return True
        return True
    return False


@contextmanager
def running(
    command: Sequence[str | Path],
    ready: Callable[[], bool],
    end: signal.Signals = signal.SIGTERM,
    **options: Any,
) -> Iterator[None]:
    """Run a server until the block ends; the block starts when the server is ready."""
    with subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        **options,
    ) as server:
        try:
            deadline = time.monotonic() + 300
            while not ready():
                assert server.poll() is None, f"{command} has ended with {server.returncode}"
                assert time.monotonic() < deadline, f"{command} does not answer"
                time.sleep(0.1)
            yield
        finally:
            with suppress(ProcessLookupError, subprocess.TimeoutExpired):
                os.killpg(server.pid, end)
                server.wait(20)
            with suppress(ProcessLookupError):
                os.killpg(server.pid, signal.SIGKILL)


def server_environment(**more: str) -> dict[str, str]:
    """Return the environment of an MLflow server that reports nothing and runs no jobs.

    For jobs it would start ten processes more.
    """
    quiet = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    return environment(**quiet, **more)


@contextmanager
def serving(clone: Clone, *command: str, **more: str) -> Iterator[str]:
    """Run an MLflow server in a clone, on a free port, and yield its address."""
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    with running(
        ["mlflow", *command, "--host", "127.0.0.1", "--port", str(port)],
        lambda: answers(f"{address}/health"),
        end=signal.SIGKILL,  # after SIGTERM it would still answer connected clients
        cwd=clone.path,
        env=server_environment(**more),
    ):
        yield address
