"""The processes of `dvc` and of the commands that it runs, by psutil and, on Linux, by /proc."""

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import psutil

from .. import processes

_SEEN = 1.0  # s after which a process has its final environment: it can be seen before its exec


class Command(NamedTuple):
    """A command of a stage, which can have several, one after the other."""

    pid: int
    began: float
    """In seconds since 1970."""
    env: Mapping[str, str]
    folder: str
    """In which it runs."""


class DvcProcess:
    """A process that has locked a project, and may be a `dvc`; raises `psutil.Error`."""

    def __init__(self, pid: int) -> None:
        self.process = psutil.Process(pid)
        self.pid = pid
        self._first: dict[int, float] = {}
        """When each child was first seen to run."""

    def commands(self) -> Iterator[Command]:
        """Yield the commands of a stage that it runs, while they are new."""
        with suppress(psutil.Error, OSError):
            children, now = _children(self.process), time.monotonic()
            self._first = {c.pid: self._first[c.pid] for c in children if c.pid in self._first}
            new = [c for c in children if now - self._first.get(c.pid, now) <= _SEEN]
            here = self.process.environ() if new else {}
            own = here.get("DVC_STAGE")
            for child in new:
                with suppress(psutil.Error, OSError):
                    if child.status() != psutil.STATUS_STOPPED:
                        self._first.setdefault(child.pid, now)
                    env = child.environ()
                    # A stage can run another `dvc`, whose children all have the variable.
                    if "DVC_STAGE" in env and (env["DVC_STAGE"] != own or "-c" in child.cmdline()):
                        yield Command(child.pid, began(child), env, child.cwd())


def is_stopped(process: psutil.Process) -> bool:
    """Whether a process is suspended."""
    try:
        return bool(process.status() == psutil.STATUS_STOPPED)
    except psutil.Error:
        return False


def is_alive(process: psutil.Process) -> bool:
    """Whether a process runs, and its id was not used again."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def _children(process: psutil.Process) -> list[psutil.Process]:
    """Return a process's children; psutil would read all processes, where Linux lists them."""
    found, is_listed = [], False
    for task in Path(f"/proc/{process.pid}/task").glob("*"):
        with suppress(OSError):
            pids = (task / "children").read_text()
            is_listed = True
            for pid in pids.split():
                with suppress(psutil.Error):
                    found.append(psutil.Process(int(pid)))
    return found if is_listed else list(process.children())


def began(process: psutil.Process) -> float:
    """Return when a process began, in seconds since 1970.

    On Linux it is exact to 0.01 s; psutil's time is up to a second off, as the boot's has whole
    seconds.
    """
    with suppress(OSError, IndexError, ValueError):
        ticks = int(processes.stat(process.pid)[19])
        booted = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
        return booted + ticks / os.sysconf("SC_CLK_TCK")
    return float(process.create_time())
