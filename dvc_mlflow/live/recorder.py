"""The recorder of one `dvc` process: it records the stages, and ends soon after the process.

DVC and MLflow take seconds to import; here that is done once, while the first command runs.
protocol.py starts it: `python -P -m dvc_mlflow.live.recorder DESCRIPTOR FOLDER DVC NAME [early]`.
"""

import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

from ..fast_imports import without_collector
from .protocol import LATER, Link, LostError, Socket
from .request import Request

_MOMENT, _PATIENCE = 0.05, 5  # seconds


class Session:
    """The connection to one running stage, and the stage's row."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self._request: Request | None = None
        self._end: dict[str, Any] | None = None
        self._row: Any = None
        self._is_recorded: bool | None = None
        self._error = ""
        self._began = time.monotonic()

    def hear(self) -> bool:
        """Read what the stage has sent; return whether it is still connected."""
        try:
            for message in self.link.receive():
                if self._request is None:
                    self._request = Request(**message)
                else:
                    self._end = message
        except (LostError, TypeError):  # it is gone, or what it says is no request
            return False
        return True

    @property
    def is_idle(self) -> bool:
        """Whether it has had time to say what it wants, and has not."""
        return self._request is None and time.monotonic() - self._began > _PATIENCE

    def work(self, opened: "Opened", is_there: bool) -> bool:
        """Do what the stage needs now; return whether it will need more later.

        An error never fails the stage: it is reported at the end.
        """
        if self._request is None:
            return is_there
        if self._is_recorded is None:
            self._is_recorded = self._request.text is None or opened.records(self._request)
            if self._request.asks:
                self._tell({"recorded": self._is_recorded})
        if not self._is_recorded:
            if self._end is not None:
                self._answer(done=True)
            return is_there and self._end is None
        try:
            if self._row is None and not self._error:
                self._begin(opened.stages, self._request)
            if self._end is not None:
                self._finish(opened.stages, self._end)
                return False
            if not is_there:
                if self._row:
                    self._row.drop()
                return False
            if self._row and not self._error:
                self._row.follow()
        except Exception as error:
            self._fail(error)
            if self._end is not None:
                self._answer()
            return is_there and self._end is None
        return True

    def _begin(self, stages: Any, request: Request) -> None:
        run_id = ""
        try:
            self._row = stages.begin(request)
            if not (self._row.run_id or self._ends_soon()):  # else it gets its result at once
                self._row.open()
            run_id = self._row.run_id
        finally:
            self._tell({"run_id": run_id})

    def _ends_soon(self) -> bool:
        """Whether the command has ended already, or ends within a moment."""
        if self._end is None and select.select([self.link], [], [], _MOMENT)[0]:
            self.hear()
        return self._end is not None

    def _finish(self, stages: Any, end: dict[str, Any]) -> None:
        if self._row is None:
            self._answer()
            return
        ended = stages.finish(self._row, end["code"], end["signal"], end["said"])
        self._error = ""  # what failed before has been made up for
        self._answer(ended.say, ended.code, done=ended.is_done)

    def _answer(self, say: Sequence[str] = (), code: int = 0, *, done: bool = False) -> None:
        if self._error:
            has_result = self._end is not None and not self._end["code"]
            say = [*say, f"the stage is not recorded: {self._error}{f'; {LATER}' * has_result}"]
        self._tell({"say": [*say], "code": code, "done": done})

    def _fail(self, error: Exception) -> None:
        self._error = " ".join(f"{error}".split())[:500] or type(error).__name__

    def _tell(self, message: dict[str, Any]) -> None:
        with suppress(LostError):  # the stage is gone, as the next `hear` will find
            self.link.send(message)


class Opened:
    """What needs DVC, and MLflow too: imported once a stage needs it."""

    def load(self) -> None:
        """Import it now."""
        with suppress(Exception), without_collector():  # a stage will say what is wrong
            from . import shared, stages  # noqa: F401

    @cached_property
    def shared(self) -> Any:
        """The project."""
        with without_collector():
            from .shared import Shared
        return Shared()

    @cached_property
    def stages(self) -> Any:
        """The stages, each with a row."""
        shared = self.shared
        with without_collector():
            from .stages import Stages
        return Stages(shared)

    def records(self, request: Request) -> bool:
        """Return whether a stage has a row; if DVC cannot say, that says why, or does nothing."""
        try:
            return bool(self.shared.is_recorded(request))
        except Exception:
            return not request.asks

    def close(self) -> None:
        """Mark the rows of unfinished stages as KILLED."""
        if "stages" in vars(self):
            self.stages.drop()


def main() -> None:
    """Record stages until the `dvc` process has ended and no row is open."""
    descriptor, folder, dvc, name, *early = sys.argv[1:]
    signal.pthread_sigmask(signal.SIG_SETMASK, ())  # the stage that started it has blocked some
    # A stage does not wait minutes for a server that hangs, as `dvc-mlflow record` may.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "8")
    end = socket.socket(fileno=int(descriptor))
    sessions: dict[int, Session] = {}
    opened = Opened()
    threading.Thread(target=_say_alive, args=[sessions], daemon=True).start()
    if early:  # what happens meanwhile is heard
        threading.Thread(target=opened.load, daemon=True).start()
    if folder == "private":
        sessions[end.fileno()] = Session(Link(end))
        _serve(None, None, sessions, opened)
        return
    watch = os.pidfd_open(int(dvc))
    while True:
        _serve(end, watch, sessions, opened)
        with Socket(folder, name) as path:
            if not select.select([end], [], [], 0)[0]:  # else a stage has connected meanwhile
                Path(path).unlink(missing_ok=True)
                break
    if not vars(opened):
        os._exit(0)  # it may still be importing


def _serve(
    listener: socket.socket | None, dvc: int | None, sessions: dict[int, Session], opened: Opened
) -> None:
    """Serve the stages that connect, until the `dvc` process has ended and all are done."""
    poll = select.poll()
    for descriptor in (listener and listener.fileno(), dvc, *sessions):
        if descriptor is not None:
            poll.register(descriptor, select.POLLIN)
    is_gone = listener is None
    while sessions or not is_gone:
        ready = {descriptor for descriptor, _ in poll.poll(500 if sessions else None)}
        if listener and listener.fileno() in ready:
            _accept(listener, sessions, poll)
        if dvc is not None and dvc in ready:
            is_gone = True
            poll.unregister(dvc)
        for descriptor, session in list(sessions.items()):
            is_there = session.hear() if descriptor in ready else True
            if not session.work(opened, is_there) or (is_gone and listener and session.is_idle):
                poll.unregister(descriptor)
                del sessions[descriptor]
                session.link.close()
    opened.close()


def _accept(listener: socket.socket, sessions: dict[int, Session], poll: select.poll) -> None:
    """Begin a session with a process of the same user that has connected."""
    try:
        link = Link(listener.accept()[0])
    except OSError:  # too many are open: one that ends makes room
        time.sleep(_MOMENT)
        return
    if link.is_own:
        sessions[link.fileno()] = Session(link)
        poll.register(link, select.POLLIN)
    else:
        link.close()


def _say_alive(sessions: dict[int, Session]) -> None:
    """Send each stage a sign of life every second."""
    while True:
        time.sleep(1)
        for session in list(sessions.values()):
            with suppress(LostError):
                session.link.send()


if __name__ == "__main__":
    main()
