"""`dvc-mlflow run COMMAND`: run a stage's command while the recorder of its `dvc` records it."""

import os
from _collections_abc import Sequence

from ..errors import warn
from ..live import spawn
from ..live.protocol import LATER
from ..live.stage_command import is_possible, record, stage_dvc, working_folder


def run(command: Sequence[str]) -> int:
    """Run a command as a stage; return its exit status, or 1 if its inputs changed meanwhile."""
    if "DVC_STAGE" not in os.environ:
        warn("not started by dvc, so nothing is recorded")
    elif not is_possible():
        warn(f"recording while a stage runs needs Linux; {LATER}")
    else:
        from ..live.plain_text import plan_of

        dvc = stage_dvc()
        plan = plan_of(os.environ["DVC_STAGE"], working_folder(dvc), has_prefix=True)
        return record(command, dvc, plan)
    return spawn.become(command, os.environ)
