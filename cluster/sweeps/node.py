"""What a node does for a trial. Sent to it by value, so it stands on the standard library alone."""

import fcntl
import hashlib
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

CUT = 400  # characters of a message
# What would reach into another repository or row. How a node logs in to git stays.
_LEAVES_THE_CLONE = re.compile("DVC_|MLFLOW_|GIT_(?!SSH|ASKPASS|CONFIG)")


def run(order: dict[str, Any]) -> dict[str, Any]:
    """Do a trial in a clone of this node that no other process uses; return what came of it.

    `order` has the trial's `name` and `overrides`, the `commit` and the git `url`, DVC's config of
    its remote, the `environment` to add, the file of the `metrics`, the folder of the `clones` or
    nothing, and for how many seconds to `pause` first.
    """
    time.sleep(order["pause"])
    started = time.monotonic()
    try:
        outcome = _in_clone(order)
    except (OSError, subprocess.CalledProcessError, _EndedEarly) as error:
        outcome = {"status": "again", "message": getattr(error, "stderr", "") or f"{error}"}
    message = " ".join(str(outcome.get("message", "")).split())
    return {
        "metrics": {},
        **outcome,
        "name": order["name"],
        "message": re.sub(r"//[^/@\s]*@", "//***@", message)[-CUT:],
        "seconds": time.monotonic() - started,
        "host": os.uname().nodename,
    }


def _in_clone(order: dict[str, Any]) -> dict[str, Any]:
    clone = _Clone(order)
    clean = clone.path.with_suffix(".clean")
    try:
        if not clean.exists():  # the trial before did not end: nobody knows in what state it is
            clone.make(order["url"])
        clean.unlink(missing_ok=True)
        outcome = clone.found(order) or clone.trial(order)
        clean.touch()
        return outcome
    finally:
        os.close(clone.lock)


class _EndedEarly(Exception):  # noqa: N818
    """The process of a trial has ended without a result."""


class _Clone:
    """A clone that this process has for itself."""

    def __init__(self, order: dict[str, Any]) -> None:
        self.path, self.lock = _free_clone(order)
        inherited = {k: v for k, v in os.environ.items() if not _LEAVES_THE_CLONE.match(k)}
        programs = [str(Path(sys.executable).parent), inherited.get("PATH", os.defpath)]
        self._environment = {
            **inherited,
            "DVC_NO_ANALYTICS": "1",
            "GIT_TERMINAL_PROMPT": "0",
            "PYTHONUNBUFFERED": "1",
            "PATH": os.pathsep.join(programs),
            **order["environment"],
        }

    def make(self, url: str) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
        self.path.mkdir()
        self._git("init", "-q")
        self._git("remote", "add", "origin", url)

    def found(self, order: dict[str, Any]) -> dict[str, Any] | None:
        """Return the result of a trial if the git remote has it, as when another was quicker."""
        commit = order["commit"]
        ref = f"refs/exps/{commit[:2]}/{commit[2:]}/{order['name']}"
        if not self._git("ls-remote", "origin", ref):
            return None
        self._git("fetch", "-q", "origin", ref)
        metrics = self._git("show", f"FETCH_HEAD:{order['metrics']}")
        return {"status": "found", "metrics": json.loads(metrics)}

    def trial(self, order: dict[str, Any]) -> dict[str, Any]:
        """Run cluster/trial.py, as it is at the sweep's commit, in a process of its own."""
        if not self._git("rev-list", "-1", "--ignore-missing", order["commit"]):
            self._git("fetch", "-q", "origin")
        self._git("checkout", "-q", "--force", "--detach", order["commit"])
        self._git("clean", "-fdq")
        log, errors, result = map(self.path.with_suffix, (".log", ".errors", ".json"))
        result.unlink(missing_ok=True)
        with log.open("w") as said, errors.open("w") as faults:
            process = subprocess.run(
                [sys.executable, "cluster/trial.py", result],
                cwd=self.path,
                env=self._environment,
                input=json.dumps(order),
                stdout=said,
                stderr=faults,
                text=True,
                check=False,
                pass_fds=[self.lock],  # held also by what outlives this worker
            )
        last = "; ".join(x for x in errors.read_text(errors="replace").splitlines()[-3:] if x)
        if not result.exists():
            raise _EndedEarly(f"ended with status {process.returncode}: {last}")
        outcome: dict[str, Any] = json.loads(result.read_text())
        if outcome["status"] == "failed":
            outcome["message"] = last or outcome["message"]
            if "MLflow at " in last:
                outcome["status"] = "again"  # the stage names its store: the trial is not to blame
        return outcome

    def _git(self, *arguments: str) -> str:
        done = subprocess.run(
            ["git", *arguments],
            cwd=self.path,
            env=self._environment,
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout


def _free_clone(order: dict[str, Any]) -> tuple[Path, int]:
    """Return the path of a clone and the lock on it, which its last holder frees by ending."""
    given = order["clones"] or f"{tempfile.gettempdir()}/dvc-sweep-{os.getuid()}"
    folder = Path(given, hashlib.sha256(order["url"].encode()).hexdigest()[:12])
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # git keeps a password of the URL in it
    for path in [folder] if order["clones"] else [folder, folder.parent]:
        if path.stat().st_uid != os.getuid():
            raise PermissionError(f"{path}: belongs to another user")
    for number in itertools.count():
        lock = os.open(folder / f"{number}.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
        else:
            return folder / f"{number}", lock
    raise AssertionError
