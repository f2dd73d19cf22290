"""`dvc-mlflow run COMMAND`: run a stage's command while the recorder of its `dvc` records it.

Nothing slow is imported here: the command starts at once, while the recorder imports DVC and
MLflow. Streams, signals and exit status are the command's own.
"""

import json
import os
import select
import signal
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .. import child, processes
from ..errors import warn
from ..protocol import LATER, TOKEN, Link, LostError, Request, connect
from ..repository import (
    address,
    default_experiment,
    main_repository,
    own_address,
    project_folder,
)

_STOPPING = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
_SIGNALS = {*_STOPPING, signal.SIGCHLD}
_GRACE = 10  # seconds that a stopped command has to end
_SILENCE = 20  # seconds; a recorder sends something each second


def run(command: Sequence[str]) -> int:
    """Run a command as a stage; return its exit status, or 1 if its inputs changed meanwhile."""
    if "DVC_STAGE" not in os.environ:
        warn("not started by dvc, so nothing is recorded")
        return child.become(command, os.environ)
    if not hasattr(signal, "sigtimedwait"):
        warn(f"recording while a stage runs needs Linux; {LATER}")
        return child.become(command, os.environ)
    began, starter = time.time_ns(), os.getppid()
    child.end_with_parent(signal.SIGTERM)
    if os.getppid() != starter or os.getpgid(starter) != os.getpgrp():
        warn("the dvc that started this stage is gone")
        return 1
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    stage = _Stage(began)
    return stage.run(command, mask)


class _Stage:
    """A stage while its command runs."""

    def __init__(self, began: int) -> None:
        self._dvc = _dvc()
        self._dvc_mark = processes.process(self._dvc)
        self._link: Link | None = None
        self._heard = time.monotonic()
        self._run_id: str | None = None
        self._answer: dict[str, Any] | None = None
        self._stopped = 0
        token = os.urandom(8).hex()
        settings = _settings(self._dvc)
        self._env, is_new = _environment(settings, token)
        self._opens_first = settings.get("open") == "first"
        self._waits = is_new or self._opens_first
        try:
            self._link = connect(self._dvc)
            params = Path("params.yaml")
            text = params.read_text(errors="replace") if params.is_file() else ""
            stage = os.environ["DVC_STAGE"]
            self._link.send(Request(stage, f"{Path.cwd()}", began, token, text)._asdict())
        except (LostError, OSError) as error:
            self._lose(error)

    def run(self, command: Sequence[str], mask: child.Mask) -> int:
        """Run the command, wait until its row is complete, and return the exit status."""
        if self._waits:
            self._wait_for_row()
        if self._stopped:
            return 128 + self._stopped
        said = child.Said()
        started = child.start(command, self._env, mask, said.end)
        said.follow()
        code = self._wait(started)
        status = code if code >= 0 else 128 - code
        if self._stopped:
            status = status or 128 + self._stopped
        return self._complete(code, status, said.last_line())

    def _wait_for_row(self) -> None:
        """Wait until the recorder has made the store, or opened the row, for the command."""
        while self._link and self._run_id is None and self._answer is None and not self._stopped:
            self._listen(0.2)
            if got := signal.sigtimedwait(_STOPPING, 0):
                self._stopped = got.si_signo
        if self._opens_first and self._run_id:
            self._env["MLFLOW_RUN_ID"] = self._run_id

    def _wait(self, started: int) -> int:
        """Wait for the command, and pass signals on; return its exit code, or minus its signal."""
        deadline = None
        while not (ended := os.waitpid(started, os.WNOHANG))[0]:
            got = signal.sigtimedwait(_SIGNALS, 1)
            number = got.si_signo if got else 0
            if not got and processes.process(self._dvc) != self._dvc_mark:
                number = 0 if self._stopped else signal.SIGTERM  # a shell between us can outlive it
            if number in _STOPPING:
                self._stopped = number
                deadline = deadline or time.monotonic() + _GRACE
                # A terminal signals the whole group, a process only us.
                if not got or got.si_code <= 0:
                    os.kill(started, number)
            if deadline and time.monotonic() > deadline:
                os.kill(started, signal.SIGKILL)
        return os.waitstatus_to_exitcode(ended[1])

    def _complete(self, code: int, status: int, said: str) -> int:
        """Wait until the row is complete, or for Ctrl-C; return the exit status."""
        try:
            if self._link:
                self._heard = time.monotonic()
                self._link.send({"code": code, "signal": self._stopped, "said": said})
            while self._link and self._answer is None:
                self._listen(0.2)
                if got := signal.sigtimedwait(_STOPPING, 0):
                    warn(f"stopped while the row was being completed; {LATER}")
                    return status or 128 + got.si_signo
        except LostError as error:
            self._lose(error)
        answer = self._answer or {"say": [], "code": 0}
        for line in answer["say"]:
            warn(line)
        return status or int(answer["code"])

    def _listen(self, seconds: float) -> None:
        """Read what the recorder has sent; wait for it at most this long."""
        try:
            if not self._link or not select.select([self._link], [], [], seconds)[0]:
                if time.monotonic() - self._heard > _SILENCE:
                    raise LostError("it does not answer")
                return
            self._heard = time.monotonic()
            for message in self._link.receive():
                self._run_id = message.get("run_id", self._run_id)
                if "say" in message:
                    self._answer = message
        except LostError as error:
            self._lose(error)

    def _lose(self, error: Exception) -> None:
        warn(f"the stage is not recorded, as its recorder was lost: {error}; {LATER}")
        self._link = None


def _dvc() -> int:
    """Return the `dvc` of this stage: the nearest ancestor that is not itself part of the stage."""
    pid, own = os.getppid(), f"DVC_STAGE={os.environ['DVC_STAGE']}".encode()
    try:
        while own in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
            pid = processes.parent(pid)
    except OSError:  # another user's
        pass
    return pid


def _settings(dvc: int) -> Mapping[str, Any]:
    """Return the stage's `meta.mlflow` in dvc.yaml, without DVC: only what the command needs.

    A stage that names no experiment is in the row of one that does, if only one name is there.
    """
    file, _, name = os.environ["DVC_STAGE"].rpartition(":")
    try:
        folder = Path(f"/proc/{dvc}/cwd").readlink()
        text = Path(folder, file or "dvc.yaml").read_text()
    except (OSError, ValueError):
        return {}
    if "mlflow" not in text.replace("dvc-mlflow", ""):
        return {}
    import yaml

    try:
        stages = yaml.load(text, yaml.CSafeLoader)["stages"]
        metas = {key: stage.get("do", stage).get("meta") or {} for key, stage in stages.items()}
        every = {k: m["mlflow"] for k, m in metas.items() if isinstance(m.get("mlflow"), Mapping)}
        found = every.get(name.partition("@")[0], {})
        named = {f"{own['experiment']}" for own in every.values() if own.get("experiment")}
        return {"experiment": named.pop(), **found} if len(named) == 1 else found
    except (LookupError, TypeError, AttributeError, ValueError, yaml.YAMLError):
        return {}  # the recorder reports what is wrong


def _environment(settings: Mapping[str, Any], token: str) -> tuple[dict[str, str], bool]:
    """Return the command's environment, in which plain MLflow calls land in the stage's row.

    Also return whether the repository's own store has to be made first.
    """
    env, root = dict(os.environ), main_repository()
    is_new = address(root) == own_address(root) and not (root / "mlflow.db").exists()
    env["MLFLOW_TRACKING_URI"] = address(root)
    if "MLFLOW_EXPERIMENT_ID" not in env:
        name = settings.get("experiment") or default_experiment(root, project_folder())
        env.setdefault("MLFLOW_EXPERIMENT_NAME", f"{name}")
    try:
        given = json.loads(env.get("MLFLOW_RUN_CONTEXT", "{}"))
    except ValueError:
        given = {}
    env["MLFLOW_RUN_CONTEXT"] = json.dumps({**given, TOKEN: token})
    return env, is_new
