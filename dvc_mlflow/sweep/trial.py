"""The trial that stdin describes, in a node's folder: `python -m dvc_mlflow.sweep.trial`.

It runs `dvc exp run` in a clone, pushes the files, and only then the experiment, so that each in
the git remote is complete. The last line that it prints says why it has failed.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from ..git import git
from ..project.default_remote import Remote, configure
from ..project.experiments import blame, run_one
from ..project.project import Project
from .node import FAILED
from .trials import ANSWERING, CLONING


def main() -> None:
    """Do the trial."""
    order = sys.stdin.readline()
    # Ray's worker holds the other end. If it dies, so does this group, with the stages; a git that
    # pushes to a folder takes its locks there along.
    subprocess.Popen(["sh", "-c", "trap '' TERM; cat; kill 0; sleep 1; kill -KILL 0"])
    os.dup2(os.open(os.devnull, os.O_RDONLY), sys.stdin.fileno())
    try:
        _trial(json.loads(order))
    except Exception as error:
        is_own, why = blame(error)
        print(why, file=sys.stderr, flush=True)
        os._exit(FAILED if is_own else 1)  # without waiting for threads that push files


def _trial(order: dict[str, Any]) -> None:
    place, ref = Path.cwd(), order["refs"] + order["name"]
    # One cache for all clones, but for runs that other sweeps must not take for theirs.
    order["dvc"]["cache"] = {"dir": f"{place.parent if order['run_cache'] else place}/cache"}
    # A trial that did not end well may have left anything in its clone.
    if not (clean := place / "clean").exists():
        shutil.rmtree(place / "clone", ignore_errors=True)
        subprocess.run(["git", "init", "-q", "clone"], check=True)
        git("remote", "add", "origin", order["url"], cwd=place / "clone")
    clean.unlink(missing_ok=True)
    os.chdir("clone")
    git("fetch", "-q", "origin", seconds=CLONING)
    git("checkout", "-q", "--force", "--detach", order["commit"])
    git("clean", "-ffdq")
    if Path(".gitmodules").exists():
        git("submodule", "-q", "update", "--init", "--recursive", "--force", seconds=CLONING)
        git("submodule", "-q", "foreach", "--recursive", "git clean -ffdq")
    os.chdir(order["folder"] or ".")
    if _there(ref) == order["there"]:  # else another node was quicker
        configure(order["dvc"])
        with Project() as project:
            remote = Remote(project)
            remote.check_sign(order["sign"])
            run_one(project, order["name"], order["overrides"], run_cache=order["run_cache"])
            remote.push()
        if _there(ref) == order["there"]:
            lease = f"--force-with-lease={ref}:{order['there']}"
            git("push", "-q", lease, "origin", ref, seconds=ANSWERING)
    clean.touch()


def _there(ref: str) -> str:
    """Return the commit of a ref in the git remote, or ""."""
    return git("ls-remote", "origin", ref, seconds=ANSWERING).decode().partition("\t")[0]


if __name__ == "__main__":
    main()
