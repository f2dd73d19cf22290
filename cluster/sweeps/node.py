"""Trials on a node: `run` is Ray's task, and this file, run as a script, does the trial.

The task is sent to the nodes by value, and uses the standard library only. The script runs in a
clone, as of the sweep's commit. It takes from other experiments the stages that would be the same,
runs `dvc exp run`, and pushes the files and, last of all, the experiment: one that the git remote
has is complete.
"""

import ctypes
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

if __name__ == "__main__":
    from dvc.dvcfile import LOCK_FILE
    from dvc.exceptions import DvcException
    from dvc.repo import Repo
    from dvc.stage.exceptions import StageCmdFailedError
    from dvc.utils.serialize import modify_yaml, parse_yaml

FILES = ("data/metrics.json", "dvc.lock")  # of an experiment, which git has: what it has come to
FAILED = 3  # the exit status of the script if a stage has failed, and said why
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
        outcome = {"status": "failed", "message": f"ended after {order['timeout']:g} s (--timeout)"}
    message = masked(outcome.get("message", ""))
    if re.search("(?i)no space left|out of diskspace|quota exceeded", message):  # any program's
        outcome["status"] = "unfit"
    return {**outcome, "message": message[-400:], "seconds": time.monotonic() - started}


def git(*arguments: str, **where: Any) -> str:
    """Run git and return what it prints; raises `CalledProcessError`."""
    done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=True, **where)
    return str(done.stdout).rstrip()


def masked(text: str) -> str:
    """Return a message as one line without the passwords of the addresses in it."""
    return re.sub(r"//[^/@\s]*@", "//***@", " ".join(text.split()))


def _in_clone(order: dict[str, Any]) -> dict[str, Any]:
    inherited = {k: v for k, v in os.environ.items() if not _LEAVES_THE_CLONE.match(k)}
    programs = f"{Path(sys.executable).parent}{os.pathsep}{inherited.get('PATH', os.defpath)}"
    own = {"DVC_NO_ANALYTICS": "1", "GIT_TERMINAL_PROMPT": "0", "PYTHONUNBUFFERED": "1"}
    environment = {**inherited, **own, "PATH": programs, **order["environment"]}
    with _free_clone(order) as lock:
        path, clean = (Path(lock.name).with_suffix(suffix) for suffix in ("", ".clean"))
        at: dict[str, Any] = {"cwd": path, "env": environment}
        # After a trial that failed or did not end, DVC may keep a training in the clone that the
        # tracking server could not record.
        if not clean.exists():
            shutil.rmtree(path, ignore_errors=True)
            git("clone", "-q", "--no-checkout", order["url"], f"{path}", env=environment)
        clean.unlink(missing_ok=True)
        if not git("rev-list", "-1", "--ignore-missing", order["commit"], **at):
            git("fetch", "-q", "origin", **at)
        git("checkout", "-q", "--force", "--detach", order["commit"], **at)
        git("clean", "-fdq", **at)
        pins = (path / "requirements.txt").read_text()
        for package, pin in re.findall(r"^([\w.-]+)==(\S+) \\$", pins, re.M):
            if (version := importlib.metadata.version(package)) != pin:
                return {"status": "unfit", "message": f"{package} {version} is not {pin}"}
        status, said = _script(order, path.with_suffix(".log"), at, lock)
        if status == 0:
            clean.touch()
            return {"status": "done", "files": [(path / name).read_text() for name in FILES]}
    # Nobody needs the earlier results in a node's clone.
    lines = [x for x in said.splitlines() if x and not x.startswith("the earlier results")]
    last = "; ".join(lines[-3:])
    if status == FAILED and "MLflow at " not in last:  # if it names its store, that is to blame
        return {"status": "failed", "message": last or "a stage failed without a message"}
    return {"status": "again", "message": f"exit status {status}: {last}"}


def _script(order: dict[str, Any], log: Path, at: dict[str, Any], lock: IO[str]) -> tuple[int, str]:
    """Run this file as a script in the clone; return its exit status and stderr."""
    # A process group of its own; the lock is held also by what outlives this worker.
    at = {**at, "start_new_session": True, "pass_fds": [lock.fileno()], "text": True}
    with log.open("w") as out, log.with_suffix(".errors").open("w+", errors="replace") as errors:
        at |= {"stdin": subprocess.PIPE, "stdout": out, "stderr": errors}
        process = subprocess.Popen([sys.executable, "cluster/sweeps/node.py"], **at)
        try:  # Ray interrupts Python, but not a wait for output: stderr must not be a pipe
            process.communicate(json.dumps(order), order["timeout"])
        finally:
            _end(process)
        errors.seek(0)
        return process.returncode, errors.read()


def _end(process: "subprocess.Popen[str]") -> None:
    """End what is left of a trial's process group; a training has time to mark its row KILLED."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
        for _ in range(int(GRACE / 0.05)):
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


def main() -> None:
    """Do the trial that stdin describes; its metrics are then where its commit has them."""
    if sys.platform == "linux":  # dies with the worker that waits for it
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    try:
        _trial(json.load(sys.stdin))  # incomplete if the worker died before that
    except (DvcException, OSError, subprocess.CalledProcessError) as error:
        stage = error.__cause__ if isinstance(error.__cause__, StageCmdFailedError) else None
        # A negative status is a signal: the stage was ended from outside, as when memory runs out.
        if stage and not re.search(r" exited with -\d+$", f"{stage}"):
            sys.exit(FAILED)
        # Otherwise DVC's or git's remote is to blame, even if DVC ran into it within a stage.
        sys.exit(masked(getattr(error, "stderr", "") or f"{stage or error}"))


def _trial(order: dict[str, Any]) -> None:
    ref, force = order["refs"] + order["name"], order["force"]
    if not force and git("ls-remote", "origin", ref):  # another node was quicker
        git("fetch", "-q", "origin", ref)
        git("restore", "--source=FETCH_HEAD", "--worktree", *FILES)
        return
    Path(".dvc/config.local").unlink(missing_ok=True)  # may be for another remote
    repo = Repo()
    with repo.config.edit("local") as config:
        config.update(order["dvc"])
    repo.experiments.remove(all_commits=True)  # of earlier trials
    _take(order["refs"], order["restore"])
    repo.experiments.run(params=order["overrides"], name=order["name"], pull=True, force=force)
    if not force:  # otherwise git has it, and only MLflow lacked it
        repo.push()
        # Refused if the ref exists by now: if two nodes ran this trial, the first one counts.
        git("push", "-q", f"--force-with-lease={ref}:", "origin", ref)


def _take(refs: str, donors: dict[str, str]) -> None:
    """Take stages from other experiments: their entries in dvc.lock, and their files in git.

    If such a stage really is unchanged, DVC then skips it and pulls its other files.
    """
    with suppress(subprocess.CalledProcessError, KeyError):  # gone by now: the stages run
        git("fetch", "-q", "origin", *{f"+{refs}{x}:refs/donors/{x}" for x in donors.values()})
        for stage, name in donors.items():
            source = f"refs/donors/{name}"
            theirs = parse_yaml(git("show", f"{source}:{LOCK_FILE}"), LOCK_FILE)["stages"][stage]
            with modify_yaml(LOCK_FILE) as ours:
                ours["stages"][stage] = theirs
            paths = [out["path"] for out in theirs["outs"]]
            if in_git := git("ls-tree", "--name-only", source, "--", *paths).split():
                git("restore", f"--source={source}", "--worktree", "--", *in_git)


if __name__ == "__main__":
    main()
