"""A follower of a repository, as people start it, and pipelines that take their time."""

import os
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import psutil

from support.clone import Clone, environment
from support.forked import Process, start
from support.pipelines import Repository
from support.processes import wait

BY_API = "from dvc.repo import Repo; Repo().reproduce(); import time; time.sleep(60)"
"""A program that runs the pipeline by DVC's API, and lives on."""


def held_by(gate: Path) -> str:
    """Return a command that ends when a file is there, or at Ctrl-C.

    Without a trap, bash goes on if that meets the end of a `sleep`.
    """
    return f"trap 'exit 1' INT; until test -e {gate}; do sleep 0.1; done"


class Follower:
    """A running `dvc-mlflow` that follows."""

    def __init__(self, process: Process, log: Path) -> None:
        self.process, self._log = process, log
        self._lines: list[str] = []

    @property
    def lines(self) -> list[str]:
        """The lines that it has printed, also once its log is gone."""
        with suppress(FileNotFoundError):
            self._lines = self._log.read_text().splitlines(keepends=True)
        return self._lines

    def wait_for(self, text: str, count: int = 1) -> None:
        """Wait until so many lines with a text were printed."""
        try:
            wait(lambda: sum(text in line for line in self.lines) >= count, 120)
        except AssertionError:
            raise AssertionError(f"{text!r} expected {count} times; it said {self.lines}") from None

    def end(self, number: int = signal.SIGINT) -> int:
        """Send it a signal, wait for its end, and return its exit status."""
        self.process.send_signal(number)
        return self.process.wait(180)


@contextmanager
def following(
    project: Repository,
    folder: str = ".",
    command: Sequence[str] = ("follow",),
    awaited: str = "following ",
    **more: str,
) -> Iterator[Follower]:
    """Follow a repository in the block, which begins when the follower has said something."""
    with (
        NamedTemporaryFile() as log,
        _started(project.path / folder, ["dvc-mlflow", *command], Path(log.name), more) as process,
    ):
        follower = Follower(process, Path(log.name))
        follower.wait_for(awaited)
        try:
            yield follower
        finally:
            print(*follower.lines, sep="")  # pytest shows it if the test fails


def run_dvc(project: Repository, *words: str, check: bool = True, **more: str) -> str:
    """Run `dvc` as a process, which a follower sees, and return what it prints."""
    with (
        NamedTemporaryFile() as log,
        _started(project.path, ["dvc", *words], Path(log.name), more) as process,
    ):
        status, said = process.wait(120), Path(log.name).read_text()
    assert not (check and status), f"dvc {' '.join(words)}: {status}\n{said}"
    return said


def followed(project: Repository, *words: str) -> None:
    """Run `dvc`, and wait until the follower of a repository has recorded what that has done."""
    run_dvc(project, *words)
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
    """Return the statuses of the rows, oldest first, at a thirtieth of the cost of the rows."""
    if not (file := project.path / "mlflow.db").exists():
        return []
    query = "SELECT status FROM runs WHERE lifecycle_stage = 'active' ORDER BY start_time, run_uuid"
    with closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True)) as store:
        return [status for (status,) in store.execute(query)]


def wait_for_rows(project: Repository, *wanted: str) -> None:
    """Wait until the rows have these statuses, oldest first."""
    try:
        wait(lambda: statuses(project) == [*wanted], 120)
    except AssertionError:
        found = [
            (r.info.status, r.info.run_name, r.info.start_time, r.data.params)
            for r in project.rows()
        ]
        raise AssertionError(f"{wanted} expected; there are {found}") from None


def wait_for_store(project: Repository, condition: Callable[[], Any], seconds: float = 120) -> Any:
    """Wait until a condition of the store holds; ask again when somebody has written to it."""
    seen = None
    with closing(sqlite3.connect(project.path / "mlflow.db")) as store:

        def is_met() -> Any:
            nonlocal seen
            before, seen = seen, store.execute("PRAGMA data_version").fetchone()
            return condition() if seen != before else None

        return wait(is_met, seconds)


@contextmanager
def started(project: Clone, *command: str, folder: str = ".", **more: str) -> Iterator[Any]:
    """Run a command in the block, in its own process group; wait for its end if all went well."""
    with (
        NamedTemporaryFile("r") as log,
        _started(project.path / folder, command, Path(log.name), more) as process,
    ):
        try:
            yield process
            process.wait(120)
        finally:
            print(log.read(), end="")  # pytest shows it if the test fails


@contextmanager
def _started(
    cwd: Path, command: Sequence[str], log: Path, more: Mapping[str, str]
) -> Iterator[Process]:
    """Start a command for the block; what it prints is appended to a file.

    The date of the last commit can lie ahead, and what runs now is newer.
    """
    last = Clone(cwd).run("git", "log", "-1", "--format=%ct", check=False).stdout
    time.sleep(max(0, int(last or 0) - time.time()))
    process = start(command, cwd, environment(**more), f"{log}")
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.kill()
        process.wait(20)
