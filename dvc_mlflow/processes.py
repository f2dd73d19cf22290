"""Which process made a row, in which clone: how the rows of dead processes are recognized."""

import os
import socket
from collections.abc import Mapping
from pathlib import Path

HOST = "host"
CLONE = "clone"
SYSTEM = "system"
PROCESS = "process"


def tags(root: Path) -> dict[str, str]:
    """Return the tags of a run that this process makes in the clone at `root`."""
    return {
        HOST: socket.gethostname(),
        CLONE: clone(root),
        SYSTEM: system(),
        PROCESS: process(os.getpid()),
    }


def clone(root: Path) -> str:
    """Return the unique name of the clone at `root`, kept in a file outside git."""
    path = root / ".dvc" / "tmp" / "clone"
    if not path.exists():
        path.with_suffix(".partial").write_text(os.urandom(16).hex())
        path.with_suffix(".partial").replace(path)
    return path.read_text()


def system() -> str:
    """Return the scope in which process ids are unique: the machine's boot and the container."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:  # not Linux
        import psutil

        return f"{psutil.boot_time():.0f} "


def process(pid: int) -> str:
    """Return a unique name of a process (ids are reused), or "" if it has ended."""
    try:
        # In ticks since the boot, because the clock may be set while it runs.
        state, *_, began = _stat(pid)[:20]
    except OSError:
        return "" if Path("/proc/self/stat").exists() else _elsewhere(pid)
    return "" if state == "Z" else f"{pid}@{began}"  # a zombie only waits for its parent


def parent(pid: int) -> int:
    """Return the id of a process's parent; raises `OSError`."""
    return int(_stat(pid)[1])


def _stat(pid: int) -> list[str]:
    """Return the fields of /proc/<pid>/stat from the state on; raises `OSError`."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


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
    boot, _, container = system().partition(" ")
    its_boot, _, its_container = tags.get(SYSTEM, "").partition(" ")
    pid, at, _ = tags.get(PROCESS, "").partition("@")
    if tags.get(HOST) != socket.gethostname() or not (its_boot and at and pid.isdecimal()):
        return False
    gone = its_container == container and process(int(pid[:9])) != tags[PROCESS]
    return its_boot != boot or gone
