"""Which process made a row, in which clone: how the rows of dead processes are recognized."""

import fcntl
import os
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from .errors import ProjectError
from .pipeline.tags import CLONE, PROCESS
from .place import own_folder


def process_tags(root: Path, pid: int = 0) -> dict[str, str]:
    """Return the tags of a run that this or another process makes in the clone at `root`."""
    return {CLONE: clone(root), PROCESS: full_name(pid or os.getpid())}


def full_name(pid: int) -> str:
    """Return a name of a process that no other one of any machine has."""
    return f"{os.uname().nodename} {system()} {process(pid)}"


def clone(root: Path) -> str:
    """Return the unique name of the clone at `root`, or "" if it has no folder to keep it in."""
    try:
        folder = own_folder(root)
    except ProjectError:  # whoever needs the folder says so
        return ""
    path, made = folder / "clone", folder / f"clone.{os.urandom(4).hex()}"
    if not path.exists():
        made.write_text(os.urandom(16).hex())
        with suppress(FileExistsError):
            os.link(made, path)  # of two processes that make it at once, both take the first one's
        made.unlink()
    return path.read_text()


def system() -> str:
    """Return the scope in which process ids are unique: the machine's boot and the container."""
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            return f"{file.read().strip()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:  # not Linux
        import psutil

        return f"{psutil.boot_time():.0f} "


def process(pid: int) -> str:
    """Return a unique name of a process (ids are reused), or "" if it has ended."""
    try:
        # In ticks since the boot, because the clock may be set while it runs.
        state, *_, began = stat(pid)[:20]
    except OSError:
        return "" if os.path.exists("/proc/self/stat") else _elsewhere(pid)
    return "" if state == "Z" else f"{pid}@{began}"  # a zombie only waits for its parent


def began(pid: int) -> float:
    """Return when a process began, in seconds since 1970, to 0.01 s; raises `OSError`.

    psutil's time is up to a second off, as the boot's has whole seconds.
    """
    if sys.platform != "linux":
        import psutil

        return float(psutil.Process(pid).create_time())
    # This process can be interrupted between two looks at a clock.
    booted = max(time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) for _ in range(3))
    return booted + int(stat(pid)[19]) / os.sysconf("SC_CLK_TCK")


def pid_of(mark: str) -> int:
    """Return the id of a process by its unique name, or 0."""
    pid, at, _ = mark.partition("@")
    return int(pid[:9]) if at and pid.isdecimal() else 0


def is_alive(mark: str) -> bool:
    """Whether a process of this name runs, here and now."""
    return bool(mark) and process(pid_of(mark)) == mark


def parent(pid: int) -> int:
    """Return the id of a process's parent; raises `OSError`."""
    return int(stat(pid)[1])


def environ(pid: int) -> dict[str, str]:
    """Return the environment that a process was started with, or {} if that is not ours to see."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            pairs = os.fsdecode(file.read()).split("\0")
    except OSError:
        return {}
    return dict(pair.split("=", 1) for pair in pairs if "=" in pair)


def stat(pid: int) -> list[str]:
    """Return the fields of /proc/<pid>/stat from the state on; raises `OSError`."""
    with open(f"/proc/{pid}/stat", errors="replace") as file:
        return file.read().rpartition(")")[2].split()


def _elsewhere(pid: int) -> str:
    import psutil  # only without /proc: importing it would slow `run` down

    try:
        found = psutil.Process(pid)
        return "" if found.status() == psutil.STATUS_ZOMBIE else f"{pid}@{found.create_time()}"
    except psutil.Error:
        return ""


def has_ended(tags: Mapping[str, str]) -> bool:
    """Whether the tags of one of this clone's runs name a process on this host that has ended.

    Anyone who can edit a run can write its tags. Processes of other containers are not visible.
    """
    parts = tags.get(PROCESS, "").split(" ")
    if len(parts) != 4 or parts[0] != os.uname().nodename or not id_in(tags):
        return False
    boot, container = system().split(" ")
    return parts[1] != boot or (parts[2] == container and process(id_in(tags)) != parts[3])


def id_in(tags: Mapping[str, str]) -> int:
    """Return the id of the process that tags of a run name, or 0."""
    return pid_of(tags.get(PROCESS, "").rpartition(" ")[2])


def is_own(tags: Mapping[str, str]) -> bool:
    """Whether the tags of a run name this process."""
    return tags.get(PROCESS, "") == full_name(os.getpid())


def runs_here(tags: Mapping[str, str]) -> bool:
    """Whether these tags name a process of this machine and container that runs."""
    return bool(pid := id_in(tags)) and tags[PROCESS] == full_name(pid)


def end_with_parent(number: int) -> None:
    """Let the kernel send this process a signal when its parent ends (on Linux alone)."""
    import ctypes

    set_parent_death_signal = 1
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(set_parent_death_signal, number)


class Locked:
    """Locks a folder against other processes in a block, which gets its descriptor.

    The operating system releases the lock of a process that has died. Raises `OSError`.
    """

    def __init__(self, folder: str | Path) -> None:
        self._descriptor = os.open(folder, os.O_RDONLY)

    def __enter__(self) -> int:
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)
        return self._descriptor

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)
