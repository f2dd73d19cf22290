"""What a node does for a trial. Sent to it by value, so it stands on the standard library alone."""

import errno
import fcntl
import hashlib
import importlib.metadata
import itertools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

GRACE = 10.0
"""Seconds between asking a trial's processes to end and killing them."""

# What would reach into another repository or row. How a node logs in to git stays.
_LEAVES_THE_CLONE = re.compile("DVC_|MLFLOW_|GIT_(?!SSH|ASKPASS|CONFIG)")


def run(order: dict[str, Any]) -> dict[str, Any]:
    """Do a trial in a clone of this node that no other process uses; return what came of it.

    The `status` is `done`, `found` if another was quicker, `failed` if the trial is to blame,
    `again` if a service is, and `unfit` if this node is.
    """
    started = time.monotonic()
    try:
        outcome = _in_clone(order)
    except (OSError, importlib.metadata.PackageNotFoundError) as error:
        outcome = {"status": "unfit", "message": f"{error}"}
    except subprocess.CalledProcessError as error:
        outcome = {"status": "again", "message": error.stderr}
    message = masked(outcome.get("message", ""))[-400:]
    if os.strerror(errno.ENOSPC) in message:  # whoever met with it
        outcome["status"] = "unfit"
    seconds = time.monotonic() - started
    return {"metrics": {}, **outcome, "message": message, "seconds": seconds}


def git(*arguments: str, text: str = "", **where: Any) -> str:
    """Return what git prints; raises `CalledProcessError`."""
    command = ["git", *arguments]
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=True, **where)
    return str(done.stdout).rstrip()


def masked(text: str) -> str:
    """Return a message as one line without the passwords of the addresses in it."""
    return re.sub(r"//[^/@\s]*@", "//***@", " ".join(text.split()))


def _in_clone(order: dict[str, Any]) -> dict[str, Any]:
    for package, pin in order["versions"].items():
        if (version := importlib.metadata.version(package)) != pin:
            return {"status": "unfit", "message": f"{package} {version} is not {pin}"}
    path, lock = _free_clone(order)
    clean = path.with_suffix(".clean")
    inherited = {k: v for k, v in os.environ.items() if not _LEAVES_THE_CLONE.match(k)}
    programs = f"{Path(sys.executable).parent}{os.pathsep}{inherited.get('PATH', os.defpath)}"
    own = {"DVC_NO_ANALYTICS": "1", "GIT_TERMINAL_PROMPT": "0", "PYTHONUNBUFFERED": "1"}
    environment = {**inherited, **own, "PATH": programs, **order["environment"]}
    at: dict[str, Any] = {"cwd": path, "env": environment}
    try:
        if not clean.exists():  # the trial before did not end: nobody knows in what state it is
            shutil.rmtree(path, ignore_errors=True)
            path.mkdir()
            git("init", "-q", **at)
            git("remote", "add", "origin", order["url"], **at)
        clean.unlink(missing_ok=True)
        if not git("rev-list", "-1", "--ignore-missing", order["commit"], **at):
            git("fetch", "-q", "origin", **at)
        git("checkout", "-q", "--force", "--detach", order["commit"], **at)
        git("clean", "-fdq", **at)
        outcome = _trial(order, at, lock)
        clean.touch()
        return outcome
    finally:
        os.close(lock)


def _trial(order: dict[str, Any], at: dict[str, Any], lock: int) -> dict[str, Any]:
    """Run cluster/trial.py, as it is at the sweep's commit, in a process group of its own."""
    log, errors, result = map(at["cwd"].with_suffix, (".log", ".errors", ".json"))
    result.unlink(missing_ok=True)
    command = [sys.executable, "cluster/trial.py", result]
    # The lock is held also by what outlives this worker.
    how = {**at, "pass_fds": [lock], "start_new_session": True, "text": True}
    with log.open("w") as said, errors.open("w") as faults:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=said, stderr=faults, **how
        )
        try:
            process.communicate(json.dumps(order), order["timeout"])  # Ray can interrupt it
        except subprocess.TimeoutExpired:
            message = f"ended after {order['timeout']:g} s (--timeout)"
            return {"status": "failed", "message": message}
        finally:
            _end(process)
    said = errors.read_text(errors="replace").splitlines()
    # Of a node's clone nobody misses the earlier results.
    last = "; ".join([x for x in said if x and not x.startswith("the earlier results")][-3:])
    if not result.exists():
        return {"status": "again", "message": f"ended with {process.returncode}: {last}"}
    outcome: dict[str, Any] = json.loads(result.read_text())
    if outcome["status"] == "failed":
        outcome["message"] = last or outcome["message"]
        if "MLflow at " in last:
            outcome["status"] = "again"  # the stage names its store: the trial is not to blame
    return outcome


def _end(process: "subprocess.Popen[str]") -> None:
    """End what is left of a trial's process group; a training marks its row KILLED before."""
    deadline = time.monotonic() + GRACE
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
        while time.monotonic() < deadline:
            process.poll()
            os.killpg(process.pid, 0)
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _free_clone(order: dict[str, Any]) -> tuple[Path, int]:
    """Return the path of a clone and the lock on it, which its last holder frees by ending."""
    given = os.path.expandvars(order["clones"]) or tempfile.gettempdir()
    url = hashlib.sha256(order["url"].encode()).hexdigest()[:12]
    folder = Path(given, f"dvc-sweep-{os.getuid()}-{url}")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # git keeps a password of the URL in it
    if folder.stat().st_uid != os.getuid():
        raise PermissionError(f"{folder}: belongs to another user")
    for number in itertools.count():
        lock = os.open(folder / f"{number}.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return folder / f"{number}", lock
        except BlockingIOError:
            os.close(lock)
    raise AssertionError
