"""Run a trial on a node. This module is sent there by value: it needs the standard library only."""

import fcntl
import importlib.metadata
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

FILES = ("data/metrics.json", "dvc.lock")  # of an experiment, which git has: what it has come to
FAILED = 3  # the exit status of cluster/trial.py if a stage has failed, and said why
GRACE = 10.0  # seconds between asking a trial's processes to end and killing them

# These would point to another repository or row. A node's own git credentials stay.
_LEAVES_THE_CLONE = re.compile("DVC_|MLFLOW_|GIT_(?!SSH|ASKPASS|CONFIG)")


def run(order: dict[str, Any]) -> dict[str, Any]:
    """Run a trial in one of this node's clones that no other process uses; return the outcome.

    The `status` is `done`, `failed` if the trial is to blame, `again` if a service is, and `unfit`
    if this node is.
    """
    started = time.monotonic()
    try:
        outcome = _in_clone(order)
    except (OSError, importlib.metadata.PackageNotFoundError) as error:
        outcome = {"status": "unfit", "message": f"{error}"}
    except subprocess.CalledProcessError as error:
        outcome = {"status": "again", "message": error.stderr}
    except subprocess.TimeoutExpired:  # whose own number can be what was left of the time
        message = f"ended after {order['timeout']:g} s (--timeout)"
        outcome = {"status": "failed", "message": message}
    message = masked(outcome.get("message", ""))[-400:]
    if "No space left on device" in message:  # whichever program ran into it
        outcome["status"] = "unfit"
    return {**outcome, "message": message, "seconds": time.monotonic() - started}


def git(*arguments: str, **where: Any) -> str:
    """Run git and return what it prints; raises `CalledProcessError`."""
    done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=True, **where)
    return str(done.stdout).rstrip()


def masked(text: str) -> str:
    """Return a message as one line without the passwords of the addresses in it."""
    return re.sub(r"//[^/@\s]*@", "//***@", " ".join(text.split()))


def _in_clone(order: dict[str, Any]) -> dict[str, Any]:
    for package, pin in order["versions"].items():
        if (version := importlib.metadata.version(package)) != pin:
            return {"status": "unfit", "message": f"{package} {version} is not {pin}"}
    inherited = {k: v for k, v in os.environ.items() if not _LEAVES_THE_CLONE.match(k)}
    programs = f"{Path(sys.executable).parent}{os.pathsep}{inherited.get('PATH', os.defpath)}"
    own = {"DVC_NO_ANALYTICS": "1", "GIT_TERMINAL_PROMPT": "0", "PYTHONUNBUFFERED": "1"}
    environment = {**inherited, **own, "PATH": programs, **order["environment"]}
    with _free_clone(order) as lock:
        path, clean = (Path(lock.name).with_suffix(suffix) for suffix in ("", ".clean"))
        at: dict[str, Any] = {"cwd": path, "env": environment}
        if not clean.exists():  # the last trial did not end, so the clone's state is unknown
            shutil.rmtree(path, ignore_errors=True)
            git("clone", "-q", "--no-checkout", order["url"], f"{path}", env=environment)
        clean.unlink(missing_ok=True)
        if not git("rev-list", "-1", "--ignore-missing", order["commit"], **at):
            git("fetch", "-q", "origin", **at)
        git("checkout", "-q", "--force", "--detach", order["commit"], **at)
        git("clean", "-fdq", **at)
        status, said = _trial(order, path.with_suffix(".log"), at, lock)
        clean.touch()
        if status == 0:
            return {"status": "done", "files": [(path / name).read_text() for name in FILES]}
    # Nobody needs the earlier results in a node's clone.
    lines = [x for x in said.splitlines() if x and not x.startswith("the earlier results")]
    last = "; ".join(lines[-3:])
    if status == FAILED and "MLflow at " not in last:  # if it names its store, that is to blame
        return {"status": "failed", "message": last}
    return {"status": "again", "message": f"exit status {status}: {last}"}


def _trial(order: dict[str, Any], log: Path, at: dict[str, Any], lock: IO[str]) -> tuple[int, str]:
    """Run cluster/trial.py, as of the sweep's commit; return its exit status and stderr."""
    command = [sys.executable, "cluster/trial.py"]
    # A process group of its own; the lock is held also by what outlives this worker.
    at = {**at, "start_new_session": True, "pass_fds": [lock.fileno()], "text": True}
    at |= {"stdin": subprocess.PIPE, "errors": "replace"}
    with log.open("w") as said, log.with_suffix(".errors").open("w+") as errors:
        process = subprocess.Popen(command, stdout=said, stderr=errors, **at)
        try:
            process.communicate(json.dumps(order), order["timeout"])  # Ray can interrupt it
        finally:
            _end(process)
        errors.seek(0)
        return process.returncode, errors.read()


def _end(process: "subprocess.Popen[str]") -> None:
    """End what is left of a trial's process group; a training has time to mark its row KILLED."""
    deadline = time.monotonic() + GRACE
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
        while time.monotonic() < deadline:
            process.poll()
            os.killpg(process.pid, 0)
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _free_clone(order: dict[str, Any]) -> IO[str]:
    """Return the lock of a clone beside it, which its last holder frees by ending."""
    folder = Path(f"{os.path.expandvars(order['clones'])}-{os.getuid()}")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # git stores a password in the URL there
    if folder.stat().st_uid != os.getuid():
        raise PermissionError(f"{folder}: belongs to another user")
    for number in itertools.count():
        lock = Path(folder, f"{number}.lock").open("w")  # noqa: SIM115
        with suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return lock
        lock.close()
    raise AssertionError
