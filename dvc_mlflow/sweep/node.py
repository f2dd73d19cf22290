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

FAILED, UNFIT = 3, 4  # trial.py's exit statuses if the trial is to blame, and if this node is
ANSWERING = 60  # seconds that the git remote may take for a ref
_CLONING = 1800  # the same for a clone
PUSHING = 3600  # the same for all remotes and the results of a trial
GRACE = 10.0  # seconds between asking a trial's processes to end and killing them
_LEAST = 1_000_000  # bytes that a disk has which is not full

# Variables that point to another repository or row. The node's git credentials are kept.
_LEAVES_THE_CLONE = re.compile("DVC_|MLFLOW_|GIT_(?!SSH|ASKPASS|CONFIG)")


def run(order: dict[str, Any]) -> dict[str, Any]:
    """Run a trial in one of this node's clones that no other process uses; return the outcome.

    The `status` is `done`, `failed` if the trial is to blame, `again` if a service is, and `unfit`
    if this node is. The `log` of one that is not done is kept.
    """
    started, log = time.monotonic(), ""
    try:
        status, said, log = _in_clone(order)
    except importlib.metadata.PackageNotFoundError as error:
        status, said = "unfit", f"{error.name} is not installed"
    except OSError as error:
        status, said = "unfit", f"{error}"
    except subprocess.CalledProcessError as error:
        status, said = "again", error.stderr
    except subprocess.TimeoutExpired as error:
        status, said = "again", f"{' '.join(error.cmd[:2])}: not done within {error.timeout:g} s"
    message = masked(said)
    # Any program can find the disk full, and not every one says where.
    if re.search("(?i)no space left|out of diskspace|disk is full|quota exceeded", message):
        status, message = "unfit", f"{message} (clones are in {_folder(order)})"
    seconds = time.monotonic() - started
    return {"status": status, "message": message[-400:], "seconds": seconds, "log": log}


def git(*arguments: str, **where: Any) -> str:
    """Run git and return what it prints; raises `CalledProcessError` or `TimeoutExpired`."""
    where |= {"capture_output": True, "text": True, "timeout": _CLONING}
    return str(subprocess.run(["git", *arguments], check=True, **where).stdout).rstrip()


def masked(text: str) -> str:
    """Return a message as one line, with user names and passwords in addresses masked."""
    return re.sub(r"//[^/@\s]*@", "//***@", " ".join(text.split()))


def _in_clone(order: dict[str, Any]) -> tuple[str, str, str]:
    """Run a trial in a free clone; return its status, a message and its log unless it is `done`."""
    inherited = {k: v for k, v in os.environ.items() if not _LEAVES_THE_CLONE.match(k)}
    programs = f"{Path(sys.executable).parent}{os.pathsep}{inherited.get('PATH', os.defpath)}"
    own = {"DVC_NO_ANALYTICS": "1", "GIT_TERMINAL_PROMPT": "0", "PYTHONUNBUFFERED": "1"}
    own |= {"GIT_HTTP_LOW_SPEED_LIMIT": "1000", "GIT_HTTP_LOW_SPEED_TIME": f"{ANSWERING}"}
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
        git("clean", "-ffdq", **at)
        if Path(path, ".gitmodules").exists():
            git("submodule", "-q", "update", "--init", "--recursive", "--force", **at)
            git("submodule", "-q", "foreach", "--recursive", "git clean -ffdq", **at)
        at["cwd"] = path / order["folder"]
        for package, pin in order["pins"]:
            if (version := importlib.metadata.version(package)) != pin:
                return "unfit", f"{package} {version} is not {pin}", ""
        log = place.with_suffix(".log")
        code, said = _script(order, log, at, lock)
        if code == 0:
            clean.touch()
            return "done", "", ""
        if shutil.disk_usage(place).free < _LEAST:
            # What the disk failed could not write that to its log either.
            return "unfit", "No space left on device", ""
        kept = log.with_name(f"{order['name']}.log")
        with suppress(OSError):  # of a full disk
            kept.write_bytes(log.read_bytes() + said.encode())
    lines = [line for line in said.splitlines() if line]
    last = "; ".join(lines[-3:]) or f"exit status {code}"
    return {FAILED: "failed", UNFIT: "unfit"}.get(code, "again"), last, f"{kept}"


def _script(order: dict[str, Any], log: Path, at: dict[str, Any], lock: IO[str]) -> tuple[int, str]:
    """Run trial.py in the clone; return its exit status and stderr."""
    # In a new process group. Processes that outlive this worker keep the clone locked.
    at = {**at, "start_new_session": True, "pass_fds": [lock.fileno()], "text": True}
    with log.open("w") as out, log.with_suffix(".errors").open("w+", errors="replace") as errors:
        at |= {"stdin": subprocess.PIPE, "stdout": out, "stderr": errors}
        command = [sys.executable, "-P", "-m", "dvc_mlflow.sweep.trial"]
        process = subprocess.Popen(command, **at)
        try:  # Ray can interrupt Python, but not a read from a pipe, so stderr is a file
            process.communicate(json.dumps(order), order["timeout"] + PUSHING + ANSWERING)
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
    folder = _folder(order)
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


def _folder(order: dict[str, Any]) -> Path:
    """Return the folder of this user's clones on this node."""
    return Path(f"{os.path.expandvars(order['clones'])}-{os.getuid()}")
