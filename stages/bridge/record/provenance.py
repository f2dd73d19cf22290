"""Where a result came from: repository, code, folder, user and process."""

import getpass
import os
import socket
import subprocess
import sys
from pathlib import Path

import psutil
from mlflow.utils import mlflow_tags

from ..run.errors import StageError
from ..run.params import PARAMS, flatten, parse

COMMIT = mlflow_tags.MLFLOW_GIT_COMMIT
DIRTY = "mlflow.source.git.dirty"  # a name that the first MLflow 3 does not have
EXPERIMENT_NAME = "dvc.exp_name"
STAGE = "dvc.stage"
FOLDER = "folder"
HOST = "host"
PROCESS = "process"


def checkout() -> Path:
    """Return the root of the checkout that is worked in: also a git worktree or DVC's copy."""
    here = Path.cwd()
    return next((path for path in (here, *here.parents) if (path / ".git").exists()), here)


def main_repository() -> Path:
    """Return the main repository, wherever DVC or git have put the copy that is worked in."""
    here = checkout()
    dvc_root = os.environ.get("DVC_ROOT")  # can be a stale one, inherited from a shell
    if dvc_root and here.is_relative_to(Path(dvc_root, ".dvc", "tmp")):
        here = Path(dvc_root)
    main = _git("-C", str(here), "worktree", "list", "--porcelain").partition("\n")[0]
    return Path(main.removeprefix("worktree ")) if main else here


def folder() -> Path:
    """Return the folder whose params.yaml is used, such as `.` or properties/claims/one."""
    return Path.cwd().relative_to(checkout())


def tags(params: Path = PARAMS) -> dict[str, str]:
    """Return the tags of a run: MLflow's own for user, source and commit, and where it was made.

    `MlflowClient.create_run` sets none of them. A tree is dirty if anything differs from the commit
    but what a run holds itself: its params, its results, and where DVC tells git to ignore them.
    """
    names = ("data/**", "dvc.lock", ".gitignore", params.name, *_outs())
    recorded = [f":(exclude,top,glob)**/{name}" for name in names]
    commit = _git("rev-parse", "HEAD")
    dirty = bool(_git("status", "--porcelain", "--", ":/", *recorded))
    found = {
        mlflow_tags.MLFLOW_USER: getpass.getuser(),
        mlflow_tags.MLFLOW_SOURCE_NAME: sys.argv[0],
        mlflow_tags.MLFLOW_SOURCE_TYPE: "LOCAL",
        COMMIT: commit,
        DIRTY: str(dirty).lower() if commit else "",
        EXPERIMENT_NAME: os.environ.get("DVC_EXP_NAME", ""),
        STAGE: os.environ.get("DVC_STAGE", ""),
        FOLDER: str(folder()).removeprefix("."),
        HOST: socket.gethostname(),
        PROCESS: process(os.getpid()),
    }
    return {key: value for key, value in found.items() if value}


def process(pid: int) -> str:
    """Return a unique name of a process (ids are reused), or "" if it has ended."""
    try:
        found = psutil.Process(pid)
        # A zombie has ended, but its parent has not yet asked how.
        return "" if found.status() == psutil.STATUS_ZOMBIE else f"{pid}@{found.create_time():.2f}"
    except psutil.NoSuchProcess:
        return ""


def has_ended(name: str) -> bool:
    """Whether the process on this host that `process` gave this name is gone."""
    return process(int(name.partition("@")[0])) != name


def title(params: dict[str, object], file: Path = PARAMS) -> str:
    """Return the folder's name and what differs from the committed params file, or `baseline`.

    `params` are by dotted key. A stage of a `foreach` or a `matrix` adds its own key.
    """
    key = os.environ.get("DVC_STAGE", "").partition("@")[2]
    names = [name for name in dict.fromkeys([folder().name, key]) if name]
    try:
        before = flatten(parse(_git("show", f"HEAD:./{file}")))
    except StageError:
        return " ".join(names) or "not committed"
    shorts = [key.split(".")[-1] for key in before]
    for key, value in params.items():
        if value != before.get(key, value):
            short = key.split(".")[-1]
            names.append(f"{short if shorts.count(short) == 1 else key}={value}")
    return " ".join(names)[:60] or "baseline"


def _outs() -> list[str]:
    """Return the outputs that the DVC project's lock file names: files, and what is in folders."""
    here = Path.cwd()
    locks = [path / "dvc.lock" for path in (here, *here.parents) if path.is_relative_to(checkout())]
    try:
        text = next((lock.read_text() for lock in locks if lock.exists()), "{}")
        stages = parse(text).get("stages", {}).values()
        outs = [str(out["path"]) for stage in stages for out in stage.get("outs", [])]
    except (StageError, OSError, AttributeError, KeyError, TypeError):  # as DVC will say
        return []
    inside = [out for out in outs if not {"..", "/"} & {*Path(out).parts}]
    return [name for out in inside for name in (out, f"{out}/**")]


def _git(*arguments: str) -> str:
    """Return what git prints, or "" where there is no git or it refuses the repository."""
    try:
        done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return done.stdout.strip()
