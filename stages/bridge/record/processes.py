"""Which process made a row, in which clone, so that the rows of dead processes are recognized."""

import os
import socket
import uuid
from collections.abc import Mapping
from pathlib import Path

import psutil

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
        path.write_text(uuid.uuid4().hex)
    return path.read_text()


def system() -> str:
    """Return the scope in which process ids are unique: the machine's boot and the container."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:  # not Linux
        return f"{psutil.boot_time():.0f} "


def process(pid: int) -> str:
    """Return a unique name of a process (ids are reused), or "" if it has ended."""
    try:
        found = psutil.Process(pid)
        stat = Path(f"/proc/{pid}/stat")
        # On Linux in ticks since the boot, because the clock may be set while it runs.
        began = (
            stat.read_text().split(")")[-1].split()[19] if stat.exists() else found.create_time()
        )
        # A zombie has ended, but its parent has not collected its status yet.
        return "" if found.status() == psutil.STATUS_ZOMBIE else f"{pid}@{began}"
    except (OSError, psutil.Error):
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
