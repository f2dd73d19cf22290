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
    if sys.platform == "linux":  # dies with the worker that waits for it
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    order = json.load(sys.stdin)  # incomplete if the worker died before that
    try:
        _trial(order)
    except (DvcException, OSError, subprocess.CalledProcessError) as error:
        if isinstance(error.__cause__, StageCmdFailedError):
            sys.exit(FAILED)
        # Otherwise DVC's or git's remote is to blame, even if DVC ran into it within a stage.
        sys.exit(masked(getattr(error, "stderr", "") or f"{error}"))


def _trial(order: dict[str, Any]) -> None:
    ref, force = order["refs"] + order["name"], order["force"]
    if not force and git("ls-remote", "origin", ref):  # another node was quicker
        git("fetch", "-q", "origin", ref)
        git("restore", "--source=FETCH_HEAD", "--worktree", *FILES)
        return
    Path(".dvc/config.local").unlink(missing_ok=True)  # may be for another remote
    repo = Repo()
    with repo.config.edit("local") as config:
        config.update(order["dvc"])
    for old in list(repo.scm.iter_refs("refs/exps/")):  # of earlier trials
        repo.scm.remove_ref(old)
    _take(order["refs"], order["restore"])
    repo.experiments.run(params=order["overrides"], name=order["name"], pull=True, force=force)
    if not force:  # otherwise git has it, and only MLflow lacked it
        repo.push()
        # Refused if the ref exists by now: if two nodes ran this trial, the first one counts.
        git("push", "-q", f"--force-with-lease={ref}:", "origin", ref)


def _take(refs: str, donors: dict[str, str]) -> None:
    """Take stages from other experiments: their entries in dvc.lock, and their files in git.

    If such a stage really is unchanged, DVC then skips it and pulls its other files.
    """
    with suppress(subprocess.CalledProcessError, KeyError):  # gone by now: the stages run
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
