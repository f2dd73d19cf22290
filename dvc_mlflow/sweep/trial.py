"""The trial that stdin describes, in a node's clone: `python -m dvc_mlflow.sweep.trial`.

It runs `dvc exp run`, pushes the files, and only then the experiment, so that each in the git
remote is complete. The last line that it prints says why it has failed.
"""

import json
import os
import signal
import sys
from typing import Any

from ..fast_imports import without_collector
from ..git import git
from ..processes import end_with_parent
from .node import ANSWERING, FAILED

with without_collector():
    from ..project import Project
    from ..project.default_remote import Remote, configure
    from ..project.experiments import blame, run


def main() -> None:
    """Do the trial."""
    # If Ray's worker dies, so do the stages: they are in the group that this process leads.
    signal.signal(signal.SIGTERM, lambda *_: os.killpg(0, signal.SIGKILL))
    end_with_parent(signal.SIGTERM)
    try:
        _trial(json.load(sys.stdin))  # incomplete if the worker has died already
    except Exception as error:
        is_own, why = blame(error)
        print(why, file=sys.stderr, flush=True)
        os._exit(FAILED if is_own else 1)  # without waiting for threads that push files


def _trial(order: dict[str, Any]) -> None:
    configure(order["dvc"])
    with Project() as project:
        remote = Remote(project)
        remote.check_sign(order["sign"])
        run(project, order["name"], order["overrides"], run_cache=order["run_cache"])
        remote.push(run_cache=order["run_cache"])
    ref = order["refs"] + order["name"]
    there = git("ls-remote", "origin", ref, seconds=ANSWERING).decode().split("\t")[0]
    if there in {"", order["incomplete"]}:
        # Refused if the ref is another by now: the first one counts.
        lease = f"--force-with-lease={ref}:{order['incomplete']}"
        git("push", "-q", lease, "origin", ref, seconds=ANSWERING)


if __name__ == "__main__":
    main()
