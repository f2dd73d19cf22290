"""What a result was made by: which repository, code, params, folder and process."""

import os
import socket
import subprocess
from pathlib import Path

import psutil

from vanilla_lstm.errors import StageError
from vanilla_lstm.params import PARAMS, Params, flatten, parse_params

_CHECKOUT = Path(__file__).parents[2]


def main_repository() -> Path:
    """Return the main repository, wherever DVC or git have put the copy that is worked in."""
    here = Path.cwd()
    dvc_root = os.environ.get("DVC_ROOT")  # can be a stale one, inherited from a shell
    if dvc_root and here.is_relative_to(Path(dvc_root, ".dvc", "tmp")):
        here = Path(dvc_root)
    main = _git("-C", str(here), "worktree", "list", "--porcelain").partition("\n")[0]
    return Path(main.removeprefix("worktree ")) if main else _CHECKOUT


def folder() -> Path:
    """Return the folder whose params.yaml is used, `.` or such as properties/long-memory."""
    return Path.cwd().relative_to(_CHECKOUT)


def origin() -> dict[str, str]:
    """Return the commit, whether it is all, DVC's experiment, the folder, the host and the process.

    `git.dirty` tells of uncommitted changes other than those to what a row holds itself: its
    params and results.
    """
    recorded = [f":(exclude,top,glob)**/{name}" for name in ("data/**", "dvc.lock", PARAMS)]
    commit = _git("rev-parse", "HEAD")
    dirty = bool(_git("status", "--porcelain", "--", ":/", *recorded))
    tags = {
        "dvc.exp_name": os.environ.get("DVC_EXP_NAME", ""),
        "folder": str(folder()).removeprefix("."),
        "git.commit": commit,
        "git.dirty": str(dirty).lower() if commit else "",
        "host": socket.gethostname(),
        "process": process(os.getpid()),
    }
    return {k: v for k, v in tags.items() if v}


def process(pid: int) -> str:
    """Return a name that no other process gets, as ids are used again; nothing if it has ended."""
    try:
        found = psutil.Process(pid)
        # A zombie has ended, but nobody has asked how.
        return "" if found.status() == psutil.STATUS_ZOMBIE else f"{pid}@{found.create_time():.2f}"
    except psutil.NoSuchProcess:
        return ""


def has_ended(name: str) -> bool:
    """Whether the process that `process` gave this name on this host is gone."""
    return process(int(name.partition("@")[0])) != name


def title(params: Params) -> str:
    """Return the folder's name and what differs from the committed params.yaml, or `baseline`."""
    names = [folder().name] if folder().name else []
    try:
        before = flatten(dict(parse_params(_git("show", f"HEAD:./{PARAMS}"))))
    except StageError:
        return " ".join(names) or "not committed"
    after = flatten(dict(params))
    shorts = [key.split(".")[-1] for key in after]
    for (key, value), short in zip(after.items(), shorts, strict=True):
        if value != before[key]:
            names.append(f"{short if shorts.count(short) == 1 else key}={value}")
    return " ".join(names)[:60] or "baseline"


def _git(*arguments: str) -> str:
    """Return what git prints, or nothing where there is no git or it refuses the repository."""
    try:
        done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return done.stdout.strip()
