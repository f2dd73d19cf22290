"""`dvc-mlflow follow`: give whatever `dvc` runs here its rows, until it is stopped."""

import argparse
import os
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ProjectError, say, warn
from ..follow.follower_lock import FollowerLock
from ..follow.project_homes import homes
from ..follow.stage_runs import Looker
from ..git import ask
from ..place import main_repository

if TYPE_CHECKING:
    from ..follow.worker import Worker
    from ..project.project import Project
    from ..store.store import Store

_PAUSE = 1.0  # s between two tries to follow where another process does
_IDLE = 10.0  # s for which nothing has run, and nobody has needed a follower


def run(arguments: argparse.Namespace) -> int:
    """Record what git has already, and follow until Ctrl-C or SIGTERM; return 0."""
    root, old = prepare()
    if not arguments.until_idle:
        from ..project.project import Project

        with Project() as project:
            open_store(project, root)
            add_history(project, root)
        say(f"following {root}")
    follow(root, old, lambda: False, until_idle=arguments.until_idle)
    return 0


def prepare() -> tuple[Path, list[str]]:
    """Let signals end this process, and forget who has started it.

    Return the main repository, and the commits that its refs name now.
    """
    on_signals(lambda *_: os._exit(0))
    root = main_repository()
    for name in ("DVC_STAGE", "DVC_ROOT", "DVC_EXP_NAME"):
        os.environ.pop(name, None)
    return root, ask("rev-list", "--no-walk", "--all", cwd=root).split()  # HEAD, too


def on_signals(end: Callable[..., object]) -> None:
    """Let Ctrl-C, SIGTERM and a terminal's end do this, whatever is done then.

    A follower ends at once: whatever it does can be killed, and is done later.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as under `nohup`
            signal.signal(number, end)


def open_store(project: "Project", root: Path) -> "Store":
    """Return the store with the table of a project's rows, made if there is none."""
    from ..rows.result import first_table, pipeline_now
    from ..store.store import Store

    return Store.open(root, *first_table(pipeline_now(project)), folder=project.folder)


def add_history(project: "Project", root: Path) -> None:
    """Record what git has, and say how many rows that were."""
    from ..record.passes import record_everything
    from ..record.recording import Recording
    from .record import report

    recording = Recording(project, root)
    record_everything(recording)
    report(recording)
    end_dead_rows(project, root)


def end_dead_rows(project: "Project", root: Path) -> None:
    """End the rows of processes that have ended, unless a follower does, which knows how."""
    from ..store.store import Store

    with suppress(ProjectError), FollowerLock(root) as lock:
        if not lock.take():
            return
    Store.existing(root, folder=project.folder).end_dead_rows()


def follow(
    root: Path, old: Sequence[str], ends: Callable[[], bool], *, until_idle: bool = False
) -> None:
    """Follow until it is to end; while another process follows the repository, wait for its end.

    Commits that can be reached from `old` ones are recorded, or are to be left out.
    `until_idle` is only for what begins from now on, until it has ended, and waits for nobody.
    """
    with FollowerLock(root) as lock:
        if not lock.take():
            if until_idle:
                return
            warn("another process follows this repository already: this one waits")
            while not (ends() or lock.take()):
                time.sleep(_PAUSE)
        lock.sign()
        worker = _worker(root, old, history=not until_idle)

        def is_over() -> bool:
            is_idle = until_idle and min(worker.idle, lock.age) > _IDLE
            return ends() or is_idle or not root.is_dir()

        worker.follow(is_over)


def _worker(root: Path, old: Sequence[str], *, history: bool) -> "Worker":
    """Return what follows a repository; what runs while DVC and MLflow are imported is seen."""
    looker = Looker([*homes(root)])
    for module in ("project.project", "store.store", "follow.worker"):  # a second each
        with suppress(OSError):
            looker.look()
        import_module(f"..{module}", __package__)
    from ..follow.new_results import NewResults
    from ..follow.worker import Worker

    return Worker(root, looker, NewResults(root, old, say, history=history), say)
