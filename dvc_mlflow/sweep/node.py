"""A trial on a node: `run` is Ray's task, sent by value, so it needs only the standard library.

It runs trial.py in one of the node's clones, at the sweep's commit, in a new process group.
"""

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

FAILED = 3  # trial.py's exit status when a stage has failed with a message of its own
GRACE = 10.0  # seconds between asking a trial's processes to end and killing them

# Variables that point to another repository or row. The node's git credentials are kept.
_LEAVES_THE_CLONE = re.compile("DVC_|MLFLOW_|GIT_(?!SSH|ASKPASS|CONFIG)")


def run(order: dict[str, Any]) -> dict[str, Any]:
    """Run a trial in one of this node's clones that no other process uses; return the outcome.

    The `status` is `done`, `failed` if the trial is to blame, `again` if a service is, and `unfit`
    if this node is.
    """
    started = time.monotonic()
    try:
        status, said = _in_clone(order)
    except importlib.metadata.PackageNotFoundError as error:
        status, said = "unfit", f"{error.name} is not installed"
    except OSError as error:
        status, said = "unfit", f"{error}"
    except subprocess.CalledProcessError as error:
        status, said = "again", error.stderr
    except subprocess.TimeoutExpired:  # its own number may be only what was left of the time
        status, said = "failed", f"ended after {order['timeout']:g} s (--timeout)"
    message = masked(said)
    # Any program can find the disk full.
    if re.search("(?i)no space left|out of diskspace|quota exceeded", message):
        status = "unfit"
    return {"status": status, "message": message[-400:], "seconds": time.monotonic() - started}


def git(*arguments: str, **where: Any) -> str:
    """Run git and return what it prints; raises `CalledProcessError`."""
    done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=True, **where)
    return str(done.stdout).rstrip()


def masked(text: str) -> str:
    """Return a message as one line, with user names and passwords in addresses masked."""
    return re.sub(r"//[^/@\s]*@", "//***@", " ".join(text.split()))


def _in_clone(order: dict[str, Any]) -> tuple[str, str]:
    """Run a trial in a free clone; return its status, and a message unless it is `done`."""
    inherited = {k: v for k, v in os.environ.items() if not _LEAVES_THE_CLONE.match(k)}
    programs = f"{Path(sys.executable).parent}{os.pathsep}{inherited.get('PATH', os.defpath)}"
    own = {"DVC_NO_ANALYTICS": "1", "GIT_TERMINAL_PROMPT": "0", "PYTHONUNBUFFERED": "1"}
    environment = {**inherited, **own, "PATH": programs, **order["environment"]}
    with _free_clone(order) as lock:
        place, clean = (Path(lock.name).with_suffix(suffix) for suffix in ("", ".clean"))
        path = place / order["repository"]  # MLflow's default experiment is named after it
        at: dict[str, Any] = {"cwd": path, "env": environment}
        # A trial that did not end well may have left anything in its clone.
        if not clean.exists():
            shutil.rmtree(place, ignore_errors=True)
            git("clone", "-q", "--no-checkout", order["url"], f"{path}", env=environment)
        clean.unlink(missing_ok=True)
        if not git("rev-list", "-1", "--ignore-missing", order["commit"], **at):
            git("fetch", "-q", "origin", **at)
        git("checkout", "-q", "--force", "--detach", order["commit"], **at)
        git("clean", "-fdq", **at)
        at["cwd"] = path / order["folder"]
        for package, pin in order["pins"]:
            if (version := importlib.metadata.version(package)) != pin:
                return "unfit", f"{package} {version} is not {pin}"
        code, said = _script(order, place.with_suffix(".log"), at, lock)
        if code == 0:
            clean.touch()
            return "done", ""
    # The lines with the addresses of rows do not say what went wrong.
    lines = [x for x in said.splitlines() if x and not re.match("dvc-mlflow: (all )?rows? ?", x)]
    last = "; ".join(lines[-3:])
    if code == FAILED:
        return "failed", last or "a stage failed without a message"
    return "again", f"exit status {code}: {last}"


def _script(order: dict[str, Any], log: Path, at: dict[str, Any], lock: IO[str]) -> tuple[int, str]:
    """Run trial.py in the clone; return its exit status and stderr."""
    # In a new process group. Processes that outlive this worker keep the clone locked.
    at = {**at, "start_new_session": True, "pass_fds": [lock.fileno()], "text": True}
    with log.open("w") as out, log.with_suffix(".errors").open("w+", errors="replace") as errors:
        at |= {"stdin": subprocess.PIPE, "stdout": out, "stderr": errors}
        command = [sys.executable, "-P", "-m", "dvc_mlflow.sweep.trial"]
        process = subprocess.Popen(command, **at)
        try:  # Ray can interrupt Python, but not a read from a pipe, so stderr is a file
            process.communicate(json.dumps(order), order["timeout"])
        finally:
            _end(process)
        errors.seek(0)
        return process.returncode, errors.read()


def _end(process: "subprocess.Popen[str]") -> None:
    """End what is left of a trial's processes; a stage gets time to mark its row KILLED."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
        for _ in range(int(GRACE / 0.05)):
            process.poll()
            os.killpg(process.pid, 0)
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


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
