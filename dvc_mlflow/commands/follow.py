"""`dvc-mlflow follow`: give whatever `dvc` runs here its rows, until it is stopped."""

import argparse
import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from threading import Event, Thread, Timer
from typing import TYPE_CHECKING

from ..errors import ProjectError, say, warn
from ..follow.follower_lock import FollowerLock
from ..follow.project_homes import homes
from ..follow.stage_runs import Looker
from ..place import main_repository

if TYPE_CHECKING:
    from ..follow.worker import Worker
    from ..project.project import Project
    from ..store.store import Store

_PAUSE = 1.0  # s between two tries to follow where another process does
_LOOK = 0.1  # s between two looks while DVC and MLflow are imported
_IDLE = 10.0  # s for which nothing has run, and nobody has needed a follower


def run(arguments: argparse.Namespace) -> int:
    """Record what git has already, and follow until Ctrl-C or SIGTERM; return 0."""
    root, ends = prepare(), stopped()
    with suppress(KeyboardInterrupt):
        if not arguments.until_idle:
            from ..project.project import Project

            with Project() as project:
                open_store(project, root)
                add_history(project, root)
            say(f"following {root}")
        follow(root, ends.is_set, until_idle=arguments.until_idle)
    return 0


def prepare() -> Path:
    """Forget who has started this process, and return the main repository."""
    root = main_repository()
    for name in ("DVC_STAGE", "DVC_ROOT", "DVC_EXP_NAME"):
        os.environ.pop(name, None)
    os.environ["GIT_OPTIONAL_LOCKS"] = "0"  # nobody's `git commit` fails because git looks
    return root


def stopped(seconds: float = 2.5, status: int = 0) -> Event:
    """Let Ctrl-C, SIGTERM and a terminal's end raise `KeyboardInterrupt`, whatever is done then.

    Whatever that is, it can be killed, and is done later. A library can lose the exception, and a
    server can take its time, so the process ends after so many `seconds` in any case. Return an
    event that is set then.
    """
    event = Event()

    def stop(*_: object) -> None:
        if not event.is_set():
            event.set()
            last = Timer(seconds, os._exit, [status])
            last.daemon = True
            last.start()
            raise KeyboardInterrupt

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as under `nohup`
            signal.signal(number, stop)
    return event


def open_store(project: "Project", root: Path) -> "Store":
    """Return the store with the table of a project's rows, made if there is none."""
    from ..rows.result import first_table
    from ..store.store import Store

    try:
        experiment, columns = first_table(project)
    except ProjectError as error:
        warn(f"{error}")
        experiment, columns = "", []
    return Store.open(root, experiment, columns, folder=project.folder)


def add_history(project: "Project", root: Path) -> None:
    """Record what git has, and say how many rows that were."""
    from ..record.passes import record_new
    from ..record.recording import Recording
    from .record import report

    recording = Recording(project, root)
    record_new(recording)
    report(recording)
    end_dead_rows(project, root)


def end_dead_rows(project: "Project", root: Path) -> None:
    """End the rows of processes that have ended, unless a follower does, which knows how."""
    from ..store.store import Store

    with suppress(ProjectError), FollowerLock(root) as lock:
        if not lock.take():
            return
    Store.existing(root, folder=project.folder).end_dead_rows()


def follow(root: Path, ends: Callable[[], bool], *, until_idle: bool = False) -> None:
    """Follow until it is to end; while another process follows the repository, wait for its end.

    `until_idle` is only for what begins from now on, until it has ended, and waits for nobody.
    """
    with FollowerLock(root) as lock:
        if not lock.take():
            if until_idle:
                return
            warn("another process follows this repository already: this one waits")
            while not (ends() or lock.take()):
                time.sleep(_PAUSE)
        worker = _worker(root, history=not until_idle)

        def is_over() -> bool:
            is_idle = until_idle and min(worker.idle, lock.age) > _IDLE
            return ends() or is_idle or not root.is_dir()

        worker.follow(is_over)


def _worker(root: Path, *, history: bool = True) -> "Worker":
    """Return what follows a repository; what runs while DVC and MLflow are imported is seen."""
    looker = Looker([*homes(root)])
    importing = Thread(target=import_module, args=("..follow.worker", __package__), daemon=True)
    importing.start()
    while importing.is_alive():
        with suppress(OSError):
            looker.look()
        importing.join(_LOOK)
    from ..follow.worker import Worker

    return Worker(root, looker, say, history=history)
