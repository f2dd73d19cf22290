"""A trial on a node: `run` is Ray's task, sent by value, so it needs only Python and Ray there.

It runs trial.py in one of the node's clones, at the sweep's commit, in a new process group.
"""

import errno
import fcntl
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

FAILED = 3
"""The exit status of a trial that would fail on any node."""
ANSWERING = 15  # seconds that a git remote may take for an answer
CLONING = 1800  # the same for a clone

_SLOW = 20.0  # seconds until a node says that it has failed, so that it fails few trials
_LEAST = 1_000_000  # bytes that a disk has which is not full
# Variables that point to another repository or row. The node's git credentials are kept.
_LEAVES_THE_CLONE = re.compile("DVC_|MLFLOW_|GIT_(?!SSH|ASKPASS|CONFIG)")


def run(order: dict[str, Any]) -> dict[str, Any]:
    """Run a trial in one of this node's clones that no other process uses.

    Returns where and for how long it ran, `why` it has failed, or "", and whether it is `again` to
    be tried, as that was the node's fault or may pass.
    """
    import ray

    started, why, again = time.monotonic(), "", False
    try:
        why = _in_clone(order)
    except (OSError, subprocess.SubprocessError) as error:
        time.sleep(_SLOW)
        said = " ".join((getattr(error, "stderr", None) or f"{error}").split())
        why, again = re.sub(r"//[^/@\s]*@", "//***@", said), True
    return {
        "host": os.uname().nodename,
        "node": ray.get_runtime_context().get_node_id(),
        "seconds": time.monotonic() - started,
        "why": why,
        "again": again,
    }


def _in_clone(order: dict[str, Any]) -> str:
    """Run a trial in a free clone; return why it has failed, or "".

    Raises `OSError` or `SubprocessError` if another node may do it.
    """
    inherited = {k: v for k, v in os.environ.items() if not _LEAVES_THE_CLONE.match(k)}
    programs = f"{Path(sys.executable).parent}{os.pathsep}{inherited.get('PATH', os.defpath)}"
    own = {"DVC_NO_ANALYTICS": "1", "GIT_TERMINAL_PROMPT": "0", "PYTHONUNBUFFERED": "1"}
    environment = {**inherited, **own, "PATH": programs, **order["environment"]}

    def git(*arguments: str, seconds: int = CLONING, cwd: Path | None = None) -> str:
        options: dict[str, Any] = {"capture_output": True, "text": True, "timeout": seconds}
        command = ["git", *arguments]
        return str(subprocess.run(command, check=True, cwd=cwd, env=environment, **options).stdout)

    there = git("ls-remote", order["url"], order["refs"] + order["name"], seconds=ANSWERING)
    if there and not there.startswith(order["incomplete"] or "-"):
        return ""  # another node was quicker
    with _free_clone(order) as lock:
        place, clean = (Path(lock.name).with_suffix(suffix) for suffix in ("", ".clean"))
        path = place / "clone"
        # A trial that did not end well may have left anything in its clone.
        if not clean.exists():
            shutil.rmtree(place, ignore_errors=True)
            git("clone", "-q", "--no-checkout", order["url"], f"{path}")
        clean.unlink(missing_ok=True)
        git("fetch", "-q", "origin", cwd=path)
        git("checkout", "-q", "--force", "--detach", order["commit"], cwd=path)
        git("clean", "-ffdq", cwd=path)
        if Path(path, ".gitmodules").exists():
            git("submodule", "-q", "update", "--init", "--recursive", "--force", cwd=path)
            git("submodule", "-q", "foreach", "--recursive", "git clean -ffdq", cwd=path)
        # One cache for all clones, but for runs that other sweeps must not take for theirs.
        caches = place.parent if order["run_cache"] else place
        order["dvc"]["cache"] = {"dir": f"{caches}/cache"}
        if not (why := _process(order, path / order["folder"], lock, environment)):
            clean.touch()
        return why


def _process(order: dict[str, Any], cwd: Path, lock: IO[str], environment: dict[str, str]) -> str:
    """Run trial.py in a clone; return why it has failed, or "". Raises what `_in_clone` raises."""
    log = Path(lock.name).with_name(f"{order['name']}.log")
    command = [sys.executable, "-P", "-m", "dvc_mlflow.sweep.trial"]
    with log.open("w") as out:
        # A trial that outlives this worker keeps the clone locked. `ps` would show an argument.
        own: dict[str, Any] = {"start_new_session": True, "pass_fds": [lock.fileno()], "text": True}
        own |= {"stdin": subprocess.PIPE, "stdout": out, "stderr": out, "env": environment}
        process = subprocess.Popen(command, cwd=cwd, **own)
        try:
            process.communicate(json.dumps(order), timeout=order["timeout"])
        except subprocess.TimeoutExpired:
            return f"ended after {order['timeout']:g} s (--timeout) (its log: {log})"
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    lines = log.read_text(errors="replace").splitlines()
    if process.returncode == 0:
        return ""
    if shutil.disk_usage(cwd).free < _LEAST:
        # What the disk failed could not write that to its log either.
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), f"{log.parent}")
    why = f"{'; '.join(filter(None, lines[-3:]))[-400:]} (its log: {log})"
    if process.returncode != FAILED:
        raise OSError(why)
    return why


def _free_clone(order: dict[str, Any]) -> IO[str]:
    """Return the lock file of a free clone, locked until the last process that has it open ends."""
    folder = Path(f"{os.path.expandvars(order['clones'])}-{os.getuid()}")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # git stores a URL's password there
    if folder.stat().st_uid != os.getuid():
        raise PermissionError(f"{folder}: belongs to another user")
    for number in itertools.count():
        lock = Path(folder, f"{number}.lock").open("w")  # noqa: SIM115
        with suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return lock
        lock.close()
    raise AssertionError
