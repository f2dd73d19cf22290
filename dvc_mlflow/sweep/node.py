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
from collections.abc import Generator, Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, cast

ANSWERING = 15  # seconds that a remote may take for an answer
CLONING = 1800  # the same for a clone
PUSHING = 3600  # the same for all results of a trial
GRACE = 1.0  # seconds between asking a trial's processes to end and killing them
NOTE = "note: "  # begins a line of trial.py's that the driver shows at once

_STATUSES = {"done", "failed", "unfit", "full", "again", "unpushed"}
_LEAST = 1_000_000  # bytes that a disk has which is not full

# Variables that point to another repository or row. The node's git credentials are kept.
_LEAVES_THE_CLONE = re.compile("DVC_|MLFLOW_|GIT_(?!SSH|ASKPASS|CONFIG)")


def run(order: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Run a trial in one of this node's clones that no other process uses.

    Yields where it runs, then its notes, and last its outcome, whose `status` is `done` or what
    `project.experiments.blame` says.
    """
    import ray

    yield {"node": ray.get_runtime_context().get_node_id(), "host": os.uname().nodename}
    started, log = time.monotonic(), ""
    try:
        status, said, log = yield from _in_clone(order)
    except OSError as error:
        status, said = "unfit", f"{error}"
    except subprocess.CalledProcessError as error:
        status, said = "again", error.stderr
    except subprocess.TimeoutExpired as error:
        status, said = "again", f"{' '.join(error.cmd[:2])}: not done within {error.timeout:g} s"
    message = re.sub(r"//[^/@\s]*@", "//***@", " ".join(said.split()))
    # Any program can find the disk full, and not every one says where.
    full = "(?i)no space left|out of diskspace|disk is full|quota exceeded"
    if status != "full" and re.search(full, message):
        status, message = "unfit", f"{message} (clones are in {_folder(order)})"
    seconds = time.monotonic() - started
    yield {"status": status, "message": message[-400:], "seconds": seconds, "log": log}


def _git(*arguments: str, seconds: float = CLONING, **where: Any) -> str:
    where |= {"capture_output": True, "text": True, "timeout": seconds}
    return str(subprocess.run(["git", *arguments], check=True, **where).stdout).rstrip()


def _in_clone(order: dict[str, Any]) -> Generator[dict[str, Any], None, tuple[str, str, str]]:
    """Run a trial in a free clone; return its status, a message and its log unless it is `done`."""
    inherited = {k: v for k, v in os.environ.items() if not _LEAVES_THE_CLONE.match(k)}
    programs = f"{Path(sys.executable).parent}{os.pathsep}{inherited.get('PATH', os.defpath)}"
    own = {"DVC_NO_ANALYTICS": "1", "GIT_TERMINAL_PROMPT": "0", "PYTHONUNBUFFERED": "1"}
    own |= {"GIT_HTTP_LOW_SPEED_LIMIT": "1000", "GIT_HTTP_LOW_SPEED_TIME": f"{ANSWERING}"}
    environment = {**inherited, **own, "PATH": programs, **order["environment"]}
    # Of two that are installed under one name, Python imports the first.
    here = {one.name: one.version for one in reversed([*importlib.metadata.distributions()])}
    for name, wanted in order["versions"].items():
        if (version := here.get(name, wanted)) != wanted:
            return "unfit", f"{name} {version} is not {wanted}, as at the driver", ""
    with _free_clone(order) as lock:
        place, clean = (Path(lock.name).with_suffix(suffix) for suffix in ("", ".clean"))
        path = place / "clone"
        at: dict[str, Any] = {"cwd": path, "env": environment}
        ref = order["refs"] + order["name"]
        there = _git("ls-remote", order["url"], ref, seconds=ANSWERING, env=environment)
        if there and not there.startswith(order["incomplete"] or "-"):
            return "done", "", ""  # another node was quicker
        # A trial that did not end well may have left anything in its clone.
        if not clean.exists():
            shutil.rmtree(place, ignore_errors=True)
            _git("clone", "-q", "--no-checkout", order["url"], f"{path}", env=environment)
        clean.unlink(missing_ok=True)
        if not _git("rev-list", "-1", "--ignore-missing", order["commit"], **at):
            _git("fetch", "-q", "origin", **at)
        _git("checkout", "-q", "--force", "--detach", order["commit"], **at)
        _git("clean", "-ffdq", **at)
        if Path(path, ".gitmodules").exists():
            _git("submodule", "-q", "update", "--init", "--recursive", "--force", **at)
            _git("submodule", "-q", "foreach", "--recursive", "git clean -ffdq", **at)
        at["cwd"] = path / order["folder"]
        # One cache for all clones: results that could not be pushed are there for the next try.
        order["dvc"]["cache"] = {"dir": f"{place.parent}/cache"}
        log = place.with_suffix(".log")
        said = yield from _process(order, log, at, lock)
        status, _, message = (said.pop() if said else "").partition(" ")
        if status not in _STATUSES:
            status, message = "again", f"{status} {message}"  # it crashed, or was killed
        if status == "done":
            clean.touch()
            return "done", "", ""
        if shutil.disk_usage(place).free < _LEAST:
            # What the disk failed could not write that to its log either.
            return "unfit", "No space left on device", ""
        kept = log.with_name(f"{order['name']}.log")
        with suppress(OSError):  # of a full disk
            kept.write_bytes(log.read_bytes() + "\n".join([*said, message]).encode())
    last = said[-2:] if status in {"failed", "again"} else []
    return status, "; ".join([*last, message]), f"{kept}"


def _process(
    order: dict[str, Any], log: Path, at: dict[str, Any], lock: IO[str]
) -> Generator[Any, None, list[str]]:
    """Run trial.py in the clone, yield its notes, and return the other lines of its stderr."""
    # In a new process group. Processes that outlive this worker keep the clone locked.
    at = {**at, "start_new_session": True, "pass_fds": [lock.fileno()], "text": True}
    errors = log.with_suffix(".errors")
    with log.open("w") as out, errors.open("w+", errors="replace") as written:
        at |= {"stdin": subprocess.PIPE, "stdout": out, "stderr": written}
        command = [sys.executable, "-P", "-m", "dvc_mlflow.sweep.trial"]
        process: subprocess.Popen[str] = subprocess.Popen(command, **at)
        with errors.open(errors="replace") as read:
            try:  # Ray can interrupt Python, but not a read from a pipe, so stderr is a file
                with cast("IO[str]", process.stdin) as stdin:
                    stdin.write(json.dumps(order))
                until = time.monotonic() + order["timeout"] + PUSHING + ANSWERING
                lines = []
                while (ended := process.poll() is not None) or time.monotonic() < until:
                    new = read.read().splitlines()
                    yield from ({"note": line.removeprefix(NOTE)} for line in new if NOTE in line)
                    lines += [line for line in new if line and NOTE not in line]
                    if ended:
                        return lines
                    time.sleep(0.05)
                return [*lines, "again the trial did not end in time"]
            finally:
                _end(process)


def _end(process: "subprocess.Popen[str]") -> None:
    """End what is left of a trial's processes, also of those that ignore SIGTERM."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
        for _ in range(int(GRACE / 0.05)):
            process.poll()
            os.killpg(process.pid, 0)
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGKILL)
    with suppress(subprocess.TimeoutExpired):  # of a disk that does not answer
        process.wait(GRACE)


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
