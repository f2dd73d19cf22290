"""The trial that stdin describes, in a node's clone: `python -m dvc_mlflow.sweep.trial`.

It takes the stages that would be the same from other experiments, runs `dvc exp run`, and pushes
the files and then the experiment. So every experiment in the git remote is complete.
"""

import json
import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..errors import ProjectError, masked
from ..fast_imports import without_collector
from ..git import git
from ..processes import end_with_parent
from .node import ANSWERING, FAILED, PUSHING, UNFIT

with without_collector():
    from ..project import Project
    from ..project.experiments import FinalError, UnfitError, push, run, take


_PAUSES = (2, 8, 20, 40)  # seconds before each further try to push, for a remote that is away


def main() -> None:
    """Do the trial."""
    if sys.platform == "linux":
        end_with_parent(signal.SIGKILL)
    try:
        _trial(json.load(sys.stdin))  # incomplete if the worker has died already
    except (ProjectError, OSError) as error:
        final, unfit = isinstance(error, FinalError), isinstance(error, UnfitError)
        said = masked(" ".join(f"{error}".split()))
        _end(FAILED if final else UNFIT if unfit else 1, said)


def _trial(order: dict[str, Any]) -> None:
    ref = order["refs"] + order["name"]
    _limit(order["timeout"], FAILED, f"ended after {order['timeout']:g} s (--timeout)")
    if _has(ref):  # another node was quicker
        return
    Path(".dvc/config.local").unlink(missing_ok=True)  # may be for another remote
    if donors := {stage: order["refs"] + name for stage, name in order["donors"].items()}:
        with suppress(ProjectError), Project() as project:  # one is gone by now: the stages run
            taken = (f"+{donor}:{donor}" for donor in {*donors.values()})
            git("fetch", "-q", "origin", *taken, seconds=ANSWERING)
            take(project, donors)
    with Project() as project:
        run(project, order["name"], order["overrides"], order["dvc"])
        _limit(PUSHING, 1, f"the results were not pushed within {PUSHING} s")
        for pause in (*_PAUSES, None):
            try:
                push(project)
                # Refused if the ref exists by now: the first one counts.
                lease = f"--force-with-lease={ref}:"
                if not _has(ref):
                    git("push", "-q", lease, "origin", ref, seconds=ANSWERING)
            except (FinalError, UnfitError):
                raise
            except (ProjectError, OSError):
                if pause is None:
                    raise
                time.sleep(pause)  # the stages would take longer
            else:
                return


def _has(ref: str) -> bool:
    """Whether the git remote has an experiment."""
    return bool(git("ls-remote", "origin", ref, seconds=ANSWERING))


def _limit(seconds: float, status: int, why: str) -> None:
    """End this process after so many seconds from now, whatever it waits for."""
    signal.signal(signal.SIGALRM, lambda *_: _end(status, why))
    signal.setitimer(signal.ITIMER_REAL, seconds)


def _end(status: int, why: str) -> None:
    """End at once, without waiting for threads that push files."""
    print(why, file=sys.stderr, flush=True)
    os._exit(status)


if __name__ == "__main__":
    main()
