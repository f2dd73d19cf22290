"""A trial on a node: `run_trial` is Ray's task, sent by value, so it needs only Python and Ray.

It gives trial.py a folder that no other trial uses, and ends what is left of its processes.
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

_SLOW = 20.0  # seconds until a node says that it has failed, so that it fails few trials
_LEAST = 1_000_000  # bytes that a disk has which is not full
# Variables that point to another repository or row. The node's git credentials are kept.
_LEAVES_THE_CLONE = re.compile("DVC_|MLFLOW_|GIT_(?!SSH|ASKPASS|CONFIG)")


def run_trial(order: dict[str, Any]) -> tuple[str, str]:
    """Run a trial; return why it has failed, or "", and on which node it ran, for how long.

    Raises `OSError`, which Ray repeats, for what is the node's fault, or may pass.
    """
    started, host = time.monotonic(), os.uname().nodename
    try:
        why = _trial(order)
    except OSError as error:
        time.sleep(_SLOW)
        raise OSError(f"{error} on {host}") from None
    return why, f"on {host} in {time.monotonic() - started:.1f} s"


def _trial(order: dict[str, Any]) -> str:
    """Run trial.py; return why it has failed, or "". Raises `OSError` if another node may do it."""
    inherited = {k: v for k, v in os.environ.items() if not _LEAVES_THE_CLONE.match(k)}
    programs = f"{Path(sys.executable).parent}{os.pathsep}{inherited.get('PATH', os.defpath)}"
    own = {"DVC_NO_ANALYTICS": "1", "GIT_TERMINAL_PROMPT": "0", "PYTHONUNBUFFERED": "1"}
    environment = {**inherited, **own, "PATH": programs, **order["environment"]}
    command = [sys.executable, "-P", "-m", "dvc_mlflow.sweep.trial"]
    with _free_folder(order) as lock:
        place = Path(lock.name).parent
        log = place.with_name(f"{order['name']}.log")
        with log.open("w") as out:
            # A trial that outlives this worker keeps the folder locked.
            how: dict[str, Any] = {"start_new_session": True, "pass_fds": [lock.fileno()]}
            how |= {"stdin": subprocess.PIPE, "stdout": out, "stderr": out, "text": True}
            process: Any = subprocess.Popen(command, cwd=place, env=environment, **how)
        with process:
            try:  # `ps` would show an argument
                process.stdin.write(f"{json.dumps(order)}\n")
                process.stdin.flush()
                process.wait(order["timeout"])
            except subprocess.TimeoutExpired:
                return f"ended after {order['timeout']:g} s (--timeout) (its log: {log})"
            finally:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
        if process.returncode == 0:
            return ""
        if shutil.disk_usage(place).free < _LEAST:
            # What the disk failed could not write that to its log either.
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), f"{place}")
        said = "; ".join(log.read_text(errors="replace").splitlines()[-2:])
        why = f"{said[-600:]} (its log: {log})"
        if process.returncode != FAILED:
            raise OSError(why)
        return why


def _free_folder(order: dict[str, Any]) -> IO[str]:
    """Return a file in a free folder, locked until the last process that has it open ends."""
    folder = Path(f"{os.path.expandvars(order['clones'])}-{os.getuid()}")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # git stores a URL's password there
    if folder.stat().st_uid != os.getuid():
        raise PermissionError(f"{folder}: belongs to another user")
    for number in itertools.count():
        (place := folder / f"{number}").mkdir(exist_ok=True)
        lock = (place / "lock").open("w")
        with suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return lock
        lock.close()
    raise AssertionError
