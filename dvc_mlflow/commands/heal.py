"""`dvc-mlflow heal [FOLDER…]`: repair what a killed `dvc` or git left behind."""

import argparse
import re
import time
from collections.abc import Iterator
from contextlib import chdir
from itertools import chain
from pathlib import Path

import psutil

from ..errors import ToolError, say
from ..git import ask
from ..project import Project
from ..project.healing import heal


def run(given: argparse.Namespace) -> int:
    """Repair the projects that the command line names, and say what was wrong; return 0."""
    for folder in given.folders or ["."]:
        if not Path(folder).is_dir():
            raise ToolError(f"{folder}: no such folder")
        with chdir(folder), Project() as project:
            for line in chain(_heal_index(), heal(project)):
                say(line)
    return 0


def _heal_index() -> Iterator[str]:
    """Remove git's index.lock if no process in this checkout can have made it."""
    top = ask("rev-parse", "--show-toplevel")
    lock = Path(ask("rev-parse", "--path-format=absolute", "--git-path", "index.lock"))
    if top and lock.is_file() and not _is_used(Path(top)):
        before = lock.stat()
        time.sleep(1)
        if lock.exists() and lock.stat() == before:
            lock.unlink()
            yield f"{lock}: was left by a killed process; removed"


def _is_used(top: Path) -> bool:
    """Whether git or DVC may be at work in a checkout.

    Of a parent only the name counts: it is git if this runs in a hook, but a shell's arguments may
    only mention git. A process that hides its folder counts as one in the checkout.
    """
    me = psutil.Process()
    parents = {process.pid for process in me.parents()}
    for process in psutil.process_iter(["name", "cmdline", "cwd", "status"]):
        found = process.info
        words = [] if process.pid in parents else (found["cmdline"] or [])[:3]
        names = [Path(word).name for word in (found["name"] or "", *words)]
        is_one = any(re.search(r"\bgit|git$|^dvc$", name) for name in names)  # not logits.py
        is_alive = process != me and found["status"] != psutil.STATUS_ZOMBIE
        is_here = found["cwd"] is None or Path(found["cwd"]).is_relative_to(top)
        if is_one and is_alive and is_here:
            return True
    return False
