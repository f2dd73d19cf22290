"""Processes: a name for each that is never used again, and the `dvc` that a stage works for."""

import os
from functools import cache

import psutil


def name(pid: int) -> str:
    """Return a process's name for ever, its id and its start, as ids are used again; or nothing."""
    try:
        found = psutil.Process(pid)
        # A zombie has ended, but nobody has asked how.
        return "" if found.status() == psutil.STATUS_ZOMBIE else f"{pid}@{found.create_time():.2f}"
    except psutil.NoSuchProcess:
        return ""


def has_ended(process: str) -> bool:
    """Whether the process that `name` gave this name on this host is gone."""
    pid, _, _ = process.partition("@")
    return not pid or name(int(pid)) != process


@cache
def dvc() -> str | None:
    """Return the name of the `dvc` that started this stage; None if none did, empty if it is gone.

    A shell may stand between the two: it has the DVC_STAGE that `dvc` gave to the stage.
    """
    stage = os.environ.get("DVC_STAGE")
    if stage is None:
        return None
    for parent in psutil.Process().parents():
        if _variable(parent, "DVC_STAGE") != stage:
            # Whoever adopts an orphan is of another process group.
            return name(parent.pid) if _group(parent) == os.getpgrp() else ""
    return ""


def _variable(process: psutil.Process, key: str) -> str | None:
    try:
        return str(process.environ()[key])
    except (KeyError, psutil.Error):  # another user's environment is not to be read
        return None


def _group(process: psutil.Process) -> int:
    try:
        return os.getpgid(process.pid)
    except ProcessLookupError:
        return -1
