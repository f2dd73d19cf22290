"""The trial that stdin describes, in a node's clone: `python -m dvc_mlflow.sweep.trial`.

It runs `dvc exp run`, pushes the files, looks whether the DVC remote has them, and only then pushes
the experiment. The last line on stderr is its outcome: what `blame` says, and the message.
"""

import json
import os
import signal
import sys
import time
from typing import Any, NoReturn

from ..errors import ProjectError
from ..fast_imports import without_collector
from ..git import git
from ..processes import end_with_parent
from .node import ANSWERING, NOTE, PUSHING

with without_collector():
    from ..project.default_remote import Remote, configure
    from ..project.experiments import AGAIN, FAILED, UNFIT, UNPUSHED, blame, run_experiment
    from ..project.project import Project

_PAUSES = (2, 5, 10)  # seconds before each further try to push


def main() -> None:
    """Do the trial."""
    if sys.platform == "linux":
        end_with_parent(signal.SIGKILL)
    try:
        _trial(json.load(sys.stdin))  # incomplete if the worker has died already
    except Exception as error:
        _end(*blame(error))
    _end("done")


def _trial(order: dict[str, Any]) -> None:
    configure(order["dvc"])
    with Project() as project:
        remote = Remote(project)
        try:
            _look(remote, order, AGAIN)
        except Exception as error:
            _end(*blame(error, at_remote=remote.place))
        _limit(order["timeout"], FAILED, f"ended after {order['timeout']:g} s (--timeout)")
        run_experiment(project, order["name"], order["overrides"])
        for pause in (*_PAUSES, None):
            if not (why := _push(remote, order)):
                return
            if pause is None:
                _end(UNPUSHED, why)
            print(f"{NOTE}{why}; next try in {pause} s", file=sys.stderr, flush=True)
            _limit(ANSWERING + pause, UNPUSHED, why)
            time.sleep(pause)  # the stages would take longer


def _look(remote: Remote, order: dict[str, Any], status: str) -> None:
    """End with this status if the remote is silent, and this node if it is not the driver's."""
    _limit(ANSWERING, status, f"{remote.place}: no answer within {ANSWERING} s")
    if not remote.is_signed(order["sign"]):
        _end(UNFIT, f"{remote.place}: not that of the driver; is its disk mounted here?")


def _push(remote: Remote, order: dict[str, Any]) -> str:
    """Push the files, and then the experiment: every one in the git remote is complete.

    Return why that may succeed later, or "" if it is done.
    """
    ref = order["refs"] + order["name"]
    try:
        _look(remote, order, UNPUSHED)
        _limit(PUSHING, UNPUSHED, f"{remote.place}: the results were not pushed within {PUSHING} s")
        remote.push()
    except Exception as error:
        status, why = blame(error, at_remote=remote.place)
        return why if status == AGAIN else _end(status, why)
    try:
        there = git("ls-remote", "origin", ref, seconds=ANSWERING).decode().split("\t")[0]
        if there in {"", order["incomplete"]}:
            # Refused if the ref is another by now: the first one counts.
            lease = f"--force-with-lease={ref}:{order['incomplete']}"
            git("push", "-q", lease, "origin", ref, seconds=ANSWERING)
    except ProjectError as error:
        return f"{error}"
    return ""


def _limit(seconds: float, status: str, why: str) -> None:
    """End this process after so many seconds from now, whatever it waits for."""
    signal.signal(signal.SIGALRM, lambda *_: _end(status, why))
    signal.setitimer(signal.ITIMER_REAL, seconds)


def _end(status: str, why: str = "") -> NoReturn:
    """End at once, without waiting for threads that push files."""
    print(f"{status} {' '.join(why.split())}", file=sys.stderr, flush=True)
    os._exit(0)


if __name__ == "__main__":
    main()
