"""A stage's command while it runs, and while the recorder of its `dvc` records it.

DVC starts this for each command, so next to nothing is imported: of the standard library what is
written in C. The command starts at once, while the recorder imports DVC and MLflow. Streams,
signals and exit status are the command's own.
"""

import _signal as signal
import os
import select
import time
from _collections_abc import Sequence

from .. import processes
from ..errors import warn
from ..pipeline.tags import TOKEN
from . import notes, spawn
from .protocol import LATER, Link, LostError, connect

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_STOPPING = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
_SIGNALS = {*_STOPPING, signal.SIGCHLD}
_GRACE = 10  # seconds that a stopped command has to end
_SILENCE = 20  # seconds; a recorder sends something each second


def record(
    command: Sequence[str], dvc: int, plan: notes.Plan, text: str | None = None, noted: str = ""
) -> int:
    """Run a stage's command and record it; return its exit status, or 1 if its inputs changed.

    `text` is the command as DVC has it, if it has no prefix. Unless the plan is sure, the recorder
    decides whether the stage is recorded; if it is not, this process becomes the command. When
    nothing is left to record, the stage is noted.
    """
    began, starter = time.time_ns(), os.getppid()
    processes.end_with_parent(signal.SIGTERM)
    if os.getppid() != starter or os.getpgid(starter) != os.getpgrp():
        warn("the dvc that started this stage is gone")
        return 1
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    stage = _Stage(began, dvc, plan, text, noted)
    if plan.is_recorded is None and not stage.is_recorded():
        if stage.is_done:
            notes.add(noted, plan.name)
        processes.end_with_parent(0)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        return spawn.become(command, os.environ)
    status = stage.run(command, mask)
    if stage.is_done:
        notes.add(noted, plan.name)
    return status


class _Stage:
    """A stage while its command runs."""

    def __init__(
        self, began: int, dvc: int, plan: notes.Plan, text: str | None, noted: str
    ) -> None:
        self.is_done = False
        self._plan, self._dvc = plan, dvc
        self._dvc_mark = processes.process(dvc)
        self._link: Link | None = None
        self._heard = time.monotonic()
        self._is_recorded: bool | None = None
        self._run_id: str | None = None
        self._answer: dict[str, Any] | None = None
        self._stopped = 0
        self._token = os.urandom(8).hex()
        try:
            request = {
                "stage": os.environ["DVC_STAGE"],
                "folder": os.getcwd(),
                "began": began,
                "token": self._token,
                "params": _params(),
                "home": working_folder(dvc),
                "text": text,
                "asks": plan.is_recorded is None,
            }
            self._link = connect(dvc, noted, is_shared=text is not None)
            self._link.send(request)
        except (LostError, OSError) as error:
            self._lose(error)

    def is_recorded(self) -> bool:
        """Wait until the recorder says whether the stage is recorded."""
        while self._link and self._is_recorded is None and not self._stopped:
            self._listen(0.2)
            self._look_for_stop()
        self.is_done = self._is_recorded is False
        return bool(self._is_recorded or self._stopped)

    def run(self, command: Sequence[str], mask: spawn.Mask) -> int:
        """Run the command, wait until its row is complete, and return the exit status."""
        opens_first = self._plan.opens_first
        env = _environment(self._plan, self._token)
        if opens_first or (self._plan.makes_store and not notes.exists(self._plan.address)):
            self._wait_for_row()
        if opens_first and self._run_id:
            env["MLFLOW_RUN_ID"] = self._run_id
        if self._stopped:
            return 128 + self._stopped
        said = spawn.Said()
        started = spawn.start(command, env, mask, said.end)
        said.follow()
        code = self._wait(started)
        status = code if code >= 0 else 128 - code
        if self._stopped:
            status = status or 128 + self._stopped
        return self._complete(code, status, said.finish())

    def _wait_for_row(self) -> None:
        """Wait until the recorder has made the store, or opened the row, for the command."""
        while self._link and self._run_id is None and self._answer is None and not self._stopped:
            self._listen(0.2)
            self._look_for_stop()

    def _look_for_stop(self) -> None:
        if got := signal.sigtimedwait(_STOPPING, 0):
            self._stopped = got.si_signo

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
                said = said if code or self._stopped else ""
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
        self.is_done = bool(answer.get("done")) and not status
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
                self._is_recorded = message.get("recorded", self._is_recorded)
                self._run_id = message.get("run_id", self._run_id)
                if "say" in message:
                    self._answer = message
        except LostError as error:
            self._lose(error)

    def _lose(self, error: Exception) -> None:
        warn(f"the stage is not recorded, as its recorder was lost: {error}; {LATER}")
        self._link = None


def is_possible() -> bool:
    """Whether this system has all that recording while a stage runs needs: Linux has."""
    has_calls = hasattr(signal, "sigtimedwait") and hasattr(os, "pidfd_open")
    return has_calls and os.path.exists("/proc/self/environ")


def stage_dvc() -> int:
    """Return the `dvc` of this stage: the nearest ancestor that is not itself part of the stage."""
    pid, own = os.getppid(), f"DVC_STAGE={os.environ['DVC_STAGE']}".encode()
    while own in processes.environ(pid).split(b"\0"):
        pid = processes.parent(pid)
    return pid


def working_folder(dvc: int) -> str:
    """Return the folder that a `dvc` works in now: an experiment's is a temporary copy."""
    try:
        return os.readlink(f"/proc/{dvc}/cwd")
    except OSError:
        return os.getcwd()


def _params() -> str:
    """Return the text of the params.yaml in the working directory, or "" if there is none."""
    try:
        with open("params.yaml", errors="replace") as file:
            return file.read()
    except (FileNotFoundError, IsADirectoryError):
        return ""


def _environment(plan: notes.Plan, token: str) -> dict[str, str]:
    """Return the command's environment, in which plain MLflow calls land in the stage's row."""
    env = dict(os.environ)
    env["MLFLOW_TRACKING_URI"] = plan.address
    if "MLFLOW_EXPERIMENT_ID" not in env:
        env.setdefault("MLFLOW_EXPERIMENT_NAME", plan.experiment)
    context = f'{{"{TOKEN}": "{token}"}}'
    if given := env.get("MLFLOW_RUN_CONTEXT"):
        import json

        try:
            context = json.dumps({**json.loads(given), TOKEN: token})
        except (ValueError, TypeError):
            pass
    env["MLFLOW_RUN_CONTEXT"] = context
    return env
