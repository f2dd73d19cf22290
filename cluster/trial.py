"""One trial, in a node's clone of the repository: `python cluster/trial.py RESULT < ORDER`.

Takes from other experiments the stages that would be the same, runs `dvc exp run`, and pushes the
files and, last of all, the experiment: one that the git remote has is complete. sweeps/node.py
starts it; a result is `failed` if the trial itself is to blame, `again` if a service is.
"""

import ctypes
import json
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from dvc.exceptions import DvcException
from dvc.repo import Repo
from dvc.stage.exceptions import StageCmdFailedError
from dvc.utils.serialize import dump_yaml, load_yaml, parse_yaml

from sweeps import LOCK, METRICS
from sweeps.node import git


def main(result: Path) -> None:
    """Do the trial that stdin describes, and write what came of it."""
    if sys.platform == "linux":  # killed with the worker that waits for it
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    order = json.load(sys.stdin)  # cut short if the worker was gone before that
    try:
        outcome = _trial(order)
    except (DvcException, OSError, subprocess.CalledProcessError) as error:
        # Else it is DVC's remote or git's, also if DVC met with it inside of a stage.
        stage_failed = isinstance(error.__cause__, StageCmdFailedError)
        message = getattr(error, "stderr", "") or f"{error}"
        outcome = {"status": "failed" if stage_failed else "again", "message": message}
    result.write_text(json.dumps(outcome))


def _trial(order: dict[str, Any]) -> dict[str, Any]:
    ref, force = order["ref"], order["force"]
    if not force and git("ls-remote", "origin", ref):  # another was quicker
        git("fetch", "-q", "origin", ref)
        return {"status": "found", "metrics": json.loads(git("show", f"FETCH_HEAD:{METRICS}"))}
    Path(".dvc/config.local").unlink(missing_ok=True)  # may be for another remote
    repo = Repo()
    with repo.config.edit("local") as config:
        config.update(order["dvc"])
    for old in list(repo.scm.iter_refs("refs/exps/")):  # of trials that are pushed, or began before
        repo.scm.remove_ref(old)
    _take(order["restore"])
    repo.experiments.run(params=order["overrides"], name=order["name"], pull=True, force=force)
    if not force:  # else git has it, and only MLflow did not
        repo.push()
        # Refused if the ref is there by now: of two that did the same trial, the first one counts.
        git("push", "-q", f"--force-with-lease={ref}:", "origin", ref)
    return {"status": "done", "metrics": json.loads(Path(METRICS).read_text())}


def _take(donors: dict[str, str]) -> None:
    """Put in place what other experiments have of stages: their locks, and the files in git.

    DVC then finds a stage unchanged, if it is, and pulls the other files.
    """
    with suppress(subprocess.CalledProcessError, KeyError):  # not there any more: the stages run
        if donors:
            git("fetch", "-q", "origin", *{f"+{ref}:refs/donors/{ref}" for ref in donors.values()})
        for stage, ref in donors.items():
            source = f"refs/donors/{ref}"
            theirs = parse_yaml(git("show", f"{source}:{LOCK}"), LOCK)["stages"][stage]
            ours = load_yaml(LOCK)
            dump_yaml(LOCK, {**ours, "stages": {**ours["stages"], stage: theirs}})
            paths = [out["path"] for out in theirs["outs"]]
            if in_git := git("ls-tree", "--name-only", source, "--", *paths).split():
                git("restore", f"--source={source}", "--worktree", "--", *in_git)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
