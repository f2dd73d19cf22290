"""A follower of a repository, as people start it, and pipelines that take their time."""

import os
import signal
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import IO, Any

import psutil
from mlflow.entities import Run

from support.clone import environment
from support.pipelines import Repository, Stages, evaluate, prepare, train
from support.waiting import wait

SLOW: Stages = {
    "prepare": {**prepare(), "cmd": f"sleep 1; {prepare()['cmd']}"},
    "train": {**train(), "cmd": f"sleep 1; {train()['cmd']}; sleep 2"},
    "a": {**evaluate("a"), "cmd": f"sleep 1; {evaluate('a')['cmd']}"},
}
"""A classic pipeline, of which the first stage is not recorded."""


class Follower:
    """A running `dvc-mlflow` that follows; `lines` are those that it has printed."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.process = process
        self.lines: list[str] = []
        self._readers = [
            threading.Thread(target=self._read, args=(stream,), daemon=True)
            for stream in (process.stdout, process.stderr)
        ]
        for reader in self._readers:
            reader.start()

    def _read(self, stream: IO[str]) -> None:
        self.lines += (line for line in iter(stream.readline, ""))

    def wait_for(self, text: str, count: int = 1) -> None:
        """Wait until so many lines with a text were printed."""
        wait(lambda: sum(text in line for line in [*self.lines]) >= count, 300)

    def end(self, number: int = signal.SIGINT) -> int:
        """Send it a signal, wait for its end, and return its exit status."""
        self.process.send_signal(number)
        status = self.process.wait(20)
        for reader in self._readers:
            reader.join(10)
        return status


@contextmanager
def following(
    project: Repository,
    folder: str = ".",
    command: Sequence[str] = ("follow",),
    awaited: str = "following ",
    **more: str,
) -> Iterator[Follower]:
    """Follow a repository in the block, which begins when the follower has said something."""
    with subprocess.Popen(
        ["dvc-mlflow", *command],
        cwd=project.path / folder,
        env=environment(**more),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        follower = Follower(process)
        try:
            follower.wait_for(awaited)
            yield follower
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def followed(project: Repository, *words: str) -> None:
    """Run `dvc`, and wait until the follower of a repository has recorded what that has done."""
    project.run("dvc", *words)
    assert project.record().status == 0


def server_of(pid: int) -> psutil.Process:
    """Return the process of MLflow's server that a `dvc-mlflow ui` has started."""
    found = []
    for child in psutil.Process(pid).children():
        with suppress(psutil.Error):  # git's end at any moment
            found += [child] if "mlflow" in child.cmdline() else []
    (server,) = found
    return server


def statuses(project: Repository) -> list[str]:
    """Return the statuses of the rows, oldest first."""
    return [run.info.status for run in project.rows()]


def wait_for_rows(project: Repository, *wanted: str) -> list[Run]:
    """Wait until the rows have these statuses, oldest first, and return them."""
    try:
        wait(lambda: statuses(project) == [*wanted], 20)
    except AssertionError:
        found = [(r.info.status, r.info.run_name, r.data.params) for r in project.rows()]
        raise AssertionError(f"{wanted} expected; there are {found}") from None
    return project.rows()


@contextmanager
def started(project: Repository, *command: str, folder: str = ".", **more: Any) -> Iterator[Any]:
    """Run a command in the block, in its own process group; wait for its end if all went well."""
    with subprocess.Popen(
        command,
        cwd=project.path / folder,
        env=environment(**more),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as process:
        try:
            yield process
            process.wait(120)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
