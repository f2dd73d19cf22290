"""What `dvc-mlflow dvc` lets DVC start in place of the user's shell, as `PROGRAM -c TEXT`.

For a command of a recorded stage it does what `dvc-mlflow run` does; anything else it becomes. DVC
starts it once for each command: it does not look for site-packages, and imports next to nothing.
"""

import os
import sys

from ..processes import environ
from . import notes, spawn, user_shell


def main() -> None:
    """Run a command of a stage in the user's shell; exit with its status."""
    words, env = sys.argv[1:], os.environ
    noted = env.pop(notes.VARIABLE, "")
    starter = os.getppid()
    is_stage = _is_dvc(starter) and words[:1] == ["-c"] and len(words) == 2
    user_shell.restore(env)
    if is_stage:
        status = _run(words[1], noted, starter)
    else:
        status = spawn.become([user_shell.path(env), *words], env)
    os._exit(status)  # there is nothing to clean up, which takes a millisecond


def _run(text: str, noted: str, dvc: int) -> int:
    command = user_shell.command(text, os.environ)
    try:
        home = os.readlink(f"/proc/{dvc}/cwd")
    except OSError:  # dvc is gone
        return spawn.become(command, os.environ)
    stage = os.environ["DVC_STAGE"]
    plan = notes.plan(noted, stage, home)
    if plan is None:  # in an experiment's copy
        import site

        site.main()
        from .plain_text import plan_of

        plan = plan_of(stage, home)
    if "dvc-mlflow" in text:
        from ..pipeline.prefix import is_prefixed

        if is_prefixed(text):
            plan.is_recorded = False
    if plan.is_recorded is False:
        notes.add(noted, plan.name)
        return spawn.become(command, os.environ)
    from .stage_command import record

    return record(command, dvc, plan, text, noted)


def _is_dvc(pid: int) -> bool:
    """Whether a process is a `dvc` that `dvc-mlflow dvc` has started, and this one its stage's.

    Below a stage, DVC_STAGE is in the environment of any process.
    """
    found = environ(pid)
    is_below = b"\0DVC_STAGE=" in b"\0" + found
    return "DVC_STAGE" in os.environ and not is_below and user_shell.is_replaced(found)
