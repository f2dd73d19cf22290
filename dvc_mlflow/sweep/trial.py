"""The trial that stdin describes, in a node's clone: `python -m dvc_mlflow.sweep.trial`.

It takes the stages that would be the same from other experiments, runs `dvc exp run`, and pushes
the files and then the experiment. So every experiment in the git remote is complete.
"""

import json
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..child import end_with_parent
from ..errors import ProjectError
from ..importing import without_collector
from ..repository import git
from .node import FAILED, masked

with without_collector():
    from ..project import Project
    from ..project.experiments import StageFailedError, run, take


def main() -> None:
    """Do the trial."""
    if sys.platform == "linux":
        end_with_parent(signal.SIGKILL)
    try:
        _trial(json.load(sys.stdin))  # incomplete if the worker has died already
    except StageFailedError:
        sys.exit(FAILED)
    except (ProjectError, OSError) as error:
        # DVC's or git's remote is to blame, even if DVC ran into it within a stage.
        sys.exit(masked(f"{error}"))


def _trial(order: dict[str, Any]) -> None:
    ref = order["refs"] + order["name"]
    if git("ls-remote", "origin", ref):  # another node was quicker
        return
    Path(".dvc/config.local").unlink(missing_ok=True)  # may be for another remote
    if donors := {stage: order["refs"] + name for stage, name in order["donors"].items()}:
        with suppress(ProjectError), Project() as project:  # one is gone by now: the stages run
            git("fetch", "-q", "origin", *(f"+{donor}:{donor}" for donor in {*donors.values()}))
            take(project, donors)
    with Project() as project:
        run(project, order["name"], order["overrides"], order["dvc"])
    # Refused if the ref exists by now: if two nodes ran this trial, the first one counts.
    git("push", "-q", f"--force-with-lease={ref}:", "origin", ref)


if __name__ == "__main__":
    main()
