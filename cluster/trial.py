"""One trial, in a node's clone of the repository: `python cluster/trial.py < ORDER`.

Takes from other experiments the stages that would be the same, runs `dvc exp run`, and pushes the
files and, last of all, the experiment: one that the git remote has is complete. sweeps/node.py
starts it.
"""

import ctypes
import json
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from dvc.dvcfile import LOCK_FILE
from dvc.exceptions import DvcException
from dvc.repo import Repo
from dvc.stage.exceptions import StageCmdFailedError
from dvc.utils.serialize import modify_yaml, parse_yaml

from sweeps.node import FAILED, FILES, git, masked


def main() -> None:
    """Do the trial that stdin describes; its metrics are then where its commit has them."""
    if sys.platform == "linux":  # killed with the worker that waits for it
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    order = json.load(sys.stdin)  # cut short if the worker was gone before that
    try:
        _trial(order)
    except (DvcException, OSError, subprocess.CalledProcessError) as error:
        if isinstance(error.__cause__, StageCmdFailedError):
            sys.exit(FAILED)
        # Else it is DVC's remote or git's, also if DVC met with it inside of a stage.
        sys.exit(masked(getattr(error, "stderr", "") or f"{error}"))


def _trial(order: dict[str, Any]) -> None:
    ref, force = order["refs"] + order["name"], order["force"]
    if not force and git("ls-remote", "origin", ref):  # another was quicker
        git("fetch", "-q", "origin", ref)
        git("restore", "--source=FETCH_HEAD", "--worktree", *FILES)
        return
    Path(".dvc/config.local").unlink(missing_ok=True)  # may be for another remote
    repo = Repo()
    with repo.config.edit("local") as config:
        config.update(order["dvc"])
    for old in list(repo.scm.iter_refs("refs/exps/")):  # of trials that are pushed, or began before
        repo.scm.remove_ref(old)
    _take(order["refs"], order["restore"])
    repo.experiments.run(params=order["overrides"], name=order["name"], pull=True, force=force)
    if not force:  # else git has it, and only MLflow did not
        repo.push()
        # Refused if the ref is there by now: of two that did the same trial, the first one counts.
        git("push", "-q", f"--force-with-lease={ref}:", "origin", ref)


def _take(refs: str, donors: dict[str, str]) -> None:
    """Put in place what other experiments have of stages: their locks, and the files in git.

    DVC then finds a stage unchanged, if it is, and pulls the other files.
    """
    with suppress(subprocess.CalledProcessError, KeyError):  # not there any more: the stages run
        git("fetch", "-q", "origin", *{f"+{refs}{x}:refs/donors/{x}" for x in donors.values()})
        for stage, name in donors.items():
            source = f"refs/donors/{name}"
            theirs = parse_yaml(git("show", f"{source}:{LOCK_FILE}"), LOCK_FILE)["stages"][stage]
            with modify_yaml(LOCK_FILE) as ours:
                ours["stages"][stage] = theirs
            paths = [out["path"] for out in theirs["outs"]]
            if in_git := git("ls-tree", "--name-only", source, "--", *paths).split():
                git("restore", f"--source={source}", "--worktree", "--", *in_git)


if __name__ == "__main__":
    main()
