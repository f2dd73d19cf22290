"""`dvc-mlflow follow`: give whatever `dvc` runs here its rows, until it is stopped."""

import argparse
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from threading import Event

from ..errors import ProjectError, StoreError, say, warn
from ..follow.history import record_history
from ..follow.known import RETRY
from ..follow.lock import Lock
from ..follow.loop import Worker
from ..git import check_git
from ..place import main_repository
from ..project import Project
from ..rows.result import table
from ..store.faults import AWAY
from ..store.store import Store
from .record import report

_PAUSE = 1.0  # s between two tries to follow where another process does


def run(given: argparse.Namespace) -> int:
    """Record what git has already, and follow until Ctrl-C or SIGTERM; return 0."""
    root = prepare()
    ends, said = stopped(), ""
    while not ends.is_set():
        try:
            with Project() as project:
                open_store(project, root)
                add_history(project, root)
        except StoreError as error:
            if error.cure != AWAY:
                raise
            if said != f"{error}":
                warn(said := f"{error}")
            ends.wait(RETRY)
        else:
            say(f"following {root}")
            follow(root, ends.is_set)
            break
    return 0


def prepare() -> Path:
    """Forget who has started this process, and return the main repository."""
    check_git()
    root = main_repository()
    for name in ("DVC_STAGE", "DVC_ROOT", "DVC_EXP_NAME"):
        os.environ.pop(name, None)
    os.environ["GIT_OPTIONAL_LOCKS"] = "0"  # nobody's `git commit` fails because git looks
    return root


def open_store(project: Project, root: Path) -> Store:
    """Return the store with the table of a project's rows, made if there is none."""
    try:
        experiment, columns = table(project)
    except ProjectError as error:
        warn(f"{error}")
        experiment, columns = "", []
    return Store(root, experiment, columns, folder=project.folder)  # it ends dead rows


def add_history(project: Project, root: Path) -> None:
    """Record what git has, and say how many rows that were."""
    report(record_history(project, root))


def stopped() -> Event:
    """Return an event that Ctrl-C, SIGTERM and a terminal's end set from now on."""
    event = Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as under `nohup`
            signal.signal(number, lambda *_: event.set())
    return event


def follow(root: Path, ends: Callable[[], bool]) -> None:
    """Follow until it is to end; while another process follows the repository, wait for its end."""
    with Lock(root) as lock:
        if not lock.take():
            warn(f"process {lock.owner} follows this repository already")
            while not (ends() or lock.take()):
                time.sleep(_PAUSE)
        if not ends():
            Worker(root, say).follow(ends)
