"""One trial, in a node's clone of the repository: `python cluster/trial.py RESULT < ORDER`.

Pulls what the DVC remote has of the trial's stages, runs `dvc exp run`, sees to the trial's row in
MLflow, and pushes files, run cache and, last of all, the experiment: one that the git remote has is
complete. sweeps/node.py starts it; a result is `failed` if the trial itself is to blame, `again` if
a service or the node is.
"""

import ctypes
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "stages"))

from dvc.exceptions import DvcException
from dvc.repo import Repo
from dvc.repo.experiments.refs import ExpRefInfo
from dvc.stage.exceptions import StageCmdFailedError

from bridge.run.errors import TrackingError
from sweeps import METRICS, rows, run_cache


def main(result: Path) -> None:
    """Do the trial that stdin describes, and write what came of it."""
    order = json.load(sys.stdin)
    _die_with_parent()
    try:
        outcome = _trial(order, result)
    except (DvcException, TrackingError, OSError, subprocess.CalledProcessError) as error:
        # Else it is DVC's remote, git's or MLflow, also if DVC met with it inside of a stage.
        stage_failed = isinstance(error.__cause__, StageCmdFailedError)
        message = getattr(error, "stderr", "") or f"{error}"
        outcome = {"status": "failed" if stage_failed else "again", "message": message}
    result.write_text(json.dumps(outcome))


def _trial(order: dict[str, Any], result: Path) -> dict[str, Any]:
    rows.wait_for_server()
    run_cache.share()
    repo = Repo()
    with repo.config.edit("local") as config:
        config.update(order["dvc"])
    for old in list(repo.scm.iter_refs("refs/exps/")):  # of trials that are pushed, or began before
        repo.scm.remove_ref(old)
    for force in (False, True):
        # Forced if MLflow lacks the result: DVC had it, and what it restores is not recorded.
        repo.experiments.run(
            params=order["overrides"], name=order["name"], pull=not force, force=force
        )
        if _recorded_by_its_stages(result) or rows.recorded():
            break
    else:
        return {"status": "again", "message": "MLflow has no row of the result"}
    ref = str(ExpRefInfo(order["commit"], order["name"]))
    repo.push(run_cache=True)
    # Pushed, so the next trial need not push it again: what it needs it finds in the remote.
    shutil.rmtree(Path(repo.stage_cache.cache_dir), ignore_errors=True)
    # Refused if the ref is there by now: of two that did the same trial, the first one counts.
    push = ["git", "push", "-q", f"--force-with-lease={ref}:", "origin", ref]
    subprocess.run(push, check=True, capture_output=True, text=True)
    return {"status": "done", "metrics": json.loads(Path(METRICS).read_text())}


def _recorded_by_its_stages(result: Path) -> bool:
    """Whether both stages that write to MLflow ran and had no word to say of it.

    Then there is no need to load MLflow and to ask it.
    """
    said = result.with_suffix(".log").read_text()
    ran = all(f"Running stage '{name}':" in said for name in ("train", "evaluate"))
    return ran and "MLflow at " not in result.with_suffix(".errors").read_text()


def _die_with_parent() -> None:
    """Have the system (Linux only) kill this process when the worker that waits for it is gone.

    The stage then ends by itself, as it does after every kill of `dvc`.
    """
    parent = os.getppid()
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    if os.getppid() != parent:
        sys.exit("the worker has ended")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
