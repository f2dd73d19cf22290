"""Processes of `dvc`, `dvc-mlflow` and `mlflow`, forked from one that has imported DVC and MLflow.

All workers of pytest-xdist share that one, which `serve` starts. What is forked are processes of
their own, and run what the console scripts run; only seconds of imports are spared. What a process
is given at its start (descriptors, limits, a loader's settings) they do not show: for that, start
the scripts themselves.
"""

import gc
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from importlib import import_module
from multiprocessing.connection import wait
from multiprocessing.managers import BaseManager
from pathlib import Path
from pkgutil import resolve_name
from tempfile import NamedTemporaryFile
from typing import Any
from unittest.mock import patch

_PROGRAMS = {
    "dvc": "dvc.cli:main",
    "dvc-mlflow": "dvc_mlflow.__main__:main",
    "mlflow": "mlflow.cli:cli",
}
"""Each console script with its function."""
_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(
    [
        *("mlflow", "mlflow.store.tracking.sqlalchemy_store", "mlflow.store.tracking.rest_store"),
        *("dvc.cli.parser", "dvc.repo.experiments.queue.tempdir", "dvc.repo.metrics.show"),
        *("dulwich.ignore", "dvc_render.vega", "networkx", "ruamel.yaml", "psutil", "yaml"),
        # What they import at work.
        *("dvc.repo.index", "pygit2", "opentelemetry.sdk.metrics", "sqlalchemy.dialects.sqlite"),
    ]
)
_ONE_AT_A_TIME = threading.Lock()  # multiprocessing looks after all processes in any call
_ADDRESS = "TESTS_FORKED_FROM"


class _Child:
    """A process as its parent sees it."""

    def __init__(self, *arguments: Any) -> None:
        self._process = _FORKS.Process(target=_run, args=arguments)
        # MLflow's import reads it.
        with _ONE_AT_A_TIME, patch.dict(os.environ, MLFLOW_DISABLE_TELEMETRY="true"):
            self._process.start()

    def pid(self) -> int:
        """Return its id."""
        return self._process.pid or 0

    def exit_status(self, seconds: float) -> int | None:
        """Return its exit status, or None if it runs for these seconds."""
        wait([self._process.sentinel], seconds)
        with _ONE_AT_A_TIME:
            return self._process.exitcode


class _Parents(BaseManager):
    """Starts processes for others."""

    Child: type[_Child]


_Parents.register("Child", _Child)
_OURS = _Parents(authkey=b"tests")  # until this process ends


def serve() -> None:
    """Start the process that this one and those below it start programs from; it ends with it."""
    _OURS.start(_end_with_the_caller)
    os.environ[_ADDRESS] = str(_OURS.address)


def _end_with_the_caller() -> None:
    caller = multiprocessing.parent_process()
    assert caller

    def end() -> None:
        caller.join()
        os._exit(1)

    threading.Thread(target=end, daemon=True).start()


@cache
def _parents() -> _Parents:
    """Return what `serve` has started."""
    parents = _Parents(os.environ[_ADDRESS], authkey=b"tests")
    parents.connect()
    return parents


class Forked:
    """A program that was started; it has what tests use of a `Popen`."""

    def __init__(
        self,
        command: Sequence[str],
        cwd: Path,
        env: Mapping[str, str],
        out: str = os.devnull,
        error: str = "",
    ) -> None:
        """Start it; what it prints is appended to `out`, and its errors to `error` if given."""
        self.out = out
        self._child = _parents().Child(command, cwd, {**env}, (out, error or out))
        self.pid = self._child.pid()
        with suppress(ProcessLookupError):  # it has ended
            while os.getpgid(self.pid) != self.pid:  # until then, nobody can kill its group
                time.sleep(0.001)

    def poll(self) -> int | None:
        """Return its exit status, or None while it runs."""
        return self._child.exit_status(0)

    def wait(self, timeout: float) -> int:
        """Wait for its end, and return its exit status."""
        if (status := self._child.exit_status(timeout)) is None:
            raise subprocess.TimeoutExpired(f"{self.pid}", timeout)
        return status

    def send_signal(self, number: int) -> None:
        """Send it a signal if it runs."""
        if self.poll() is None:
            with suppress(ProcessLookupError):  # the fork server has just reaped it
                os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill it."""
        self.send_signal(signal.SIGKILL)


Process = Forked | subprocess.Popen[bytes]


def start(
    command: Sequence[str | Path],
    cwd: Path,
    env: Mapping[str, str],
    log: str = os.devnull,
    **options: Any,
) -> Process:
    """Start a command in a session of its own; what it prints is appended to a file."""
    if _is_forked(command, env):
        return Forked([*map(str, command)], cwd, env, log)
    with Path(log).open("ab") as file:
        return subprocess.Popen(
            command,
            cwd=cwd,
            env=env,
            stdout=file,
            stderr=file,
            start_new_session=True,
            **options,
        )


def run(
    command: Sequence[str | Path], cwd: Path, env: Mapping[str, str]
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, and return what it printed."""
    if not _is_forked(command, env):
        return subprocess.run(
            command, cwd=cwd, env=env, capture_output=True, text=True, check=False
        )
    with NamedTemporaryFile() as out, NamedTemporaryFile() as error:
        words = [*map(str, command)]
        status = Forked(words, cwd, env, out.name, error.name).wait(600)
        printed = [Path(file.name).read_text() for file in (out, error)]
    return subprocess.CompletedProcess(words, status, *printed)


def _is_forked(command: Sequence[str | Path], env: Mapping[str, str]) -> bool:
    """Whether it is this environment's program, and nothing asks for another one or a loader's.

    `dvc-mlflow run` is a shell script: it starts Python only where it must.
    """
    name, *words = map(str, command)
    return (
        name in _PROGRAMS
        and words[:1] != ["run"]
        and shutil.which(name, path=env["PATH"]) == f"{Path(sys.executable).parent}/{name}"
        and not {"LD_PRELOAD", "PYTHONPATH"} & env.keys()
    )


def _run(
    command: Sequence[str], cwd: Path, env: Mapping[str, str], streams: tuple[str, str]
) -> None:
    """Be a console script in a session of its own."""
    gc.freeze()  # what was imported: no garbage is among it
    os.setsid()
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored if the suite ignores it
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    for number, file in enumerate(streams, start=1):
        os.dup2(os.open(file, os.O_WRONLY | os.O_APPEND), number)
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    sys.argv = [*command]
    import_module("support.unsynced")
    sys.exit(resolve_name(_PROGRAMS[command[0]])(command[1:]))
