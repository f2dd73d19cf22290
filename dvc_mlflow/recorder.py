"""The recorder of one `dvc` process: it records the stages, and ends soon after the process.

DVC and MLflow take seconds to import; here that is done once, while the first command runs.
protocol.py starts it: `python -P -m dvc_mlflow.recorder DESCRIPTOR FOLDER DVC NAME`.
"""

import os
import select
import socket
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from .importing import without_collector
from .protocol import LATER, Link, LostError, Place, Request


class Session:
    """The connection to one running stage, and the stage's row."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self._request: Request | None = None
        self._end: dict[str, Any] | None = None
        self._row: Any = None
        self._error = ""

    def hear(self) -> bool:
        """Read what the stage has sent; return whether it is still connected."""
        try:
            for message in self.link.receive():
                if self._request is None:
                    self._request = Request(**message)
                else:
                    self._end = message
        except LostError:
            return False
        return True

    def work(self, stores: Any, is_there: bool) -> bool:
        """Do what the stage needs now; return whether it will need more later.

        An error never fails the stage: it is reported at the end.
        """
        if self._request is None:
            return is_there
        try:
            if self._row is None and not self._error:
                self._begin(stores, self._request)
            if self._end is not None:
                self._finish(self._end)
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
                self._answer([], 0)
            return is_there and self._end is None
        return True

    def _begin(self, stores: Any, request: Request) -> None:
        from .live import LiveRow

        run_id = ""
        try:
            self._row = LiveRow(stores, request)
            self._row.open()
            run_id = self._row.run_id
        finally:
            self._tell({"run_id": run_id})

    def _finish(self, end: dict[str, Any]) -> None:
        if self._row is None:
            self._answer([], 0)
            return
        ended = self._row.finish(end["code"], end["signal"], end["said"])
        self._error = ""  # what failed before has been made up for
        self._answer(ended.say, ended.code)

    def _answer(self, say: list[str], code: int) -> None:
        if self._error:
            has_result = self._end is not None and not self._end["code"]
            say = [*say, f"the stage is not recorded: {self._error}{f'; {LATER}' * has_result}"]
        self._tell({"say": say, "code": code})

    def _fail(self, error: Exception) -> None:
        self._error = " ".join(f"{error}".split())[:500] or type(error).__name__

    def _tell(self, message: object) -> None:
        with suppress(LostError):  # the stage is gone, as the next `hear` will find
            self.link.send(message)


def main() -> None:
    """Record stages until the `dvc` process has ended and no row is open."""
    descriptor, folder, dvc, name = sys.argv[1:]
    # A stage does not wait minutes for a server that hangs, as `dvc-mlflow record` may.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "8")
    end = socket.socket(fileno=int(descriptor))
    sessions: dict[int, Session] = {}
    threading.Thread(target=_say_alive, args=[sessions], daemon=True).start()
    if folder == "private":
        sessions[end.fileno()] = Session(Link(end))
        _serve(None, None, sessions)
        return
    watch = os.pidfd_open(int(dvc))
    while True:
        _serve(end, watch, sessions)
        with Place(folder, name).lock() as path:
            if not select.select([end], [], [], 0)[0]:  # else a stage has connected meanwhile
                Path(path).unlink(missing_ok=True)
                return


def _serve(listener: socket.socket | None, dvc: int | None, sessions: dict[int, Session]) -> None:
    """Serve the stages that connect, until the `dvc` process has ended and all are done."""
    poll = select.poll()
    for descriptor in (listener and listener.fileno(), dvc, *sessions):
        if descriptor is not None:
            poll.register(descriptor, select.POLLIN)
    stores: Any = None
    is_gone = listener is None
    while sessions or not is_gone:
        ready = {descriptor for descriptor, _ in poll.poll(500 if sessions else None)}
        if listener and listener.fileno() in ready:
            session = Session(Link(listener.accept()[0]))
            sessions[session.link.fileno()] = session
            poll.register(session.link, select.POLLIN)
        if dvc is not None and dvc in ready:
            is_gone = True
            poll.unregister(dvc)
        if stores is None:
            with without_collector():
                from .live import Stores

            stores = Stores()
        for descriptor, session in list(sessions.items()):
            is_there = session.hear() if descriptor in ready else True
            if not session.work(stores, is_there):
                poll.unregister(descriptor)
                del sessions[descriptor]
                session.link.close()


def _say_alive(sessions: dict[int, Session]) -> None:
    """Send each stage a sign of life every second."""
    while True:
        time.sleep(1)
        for session in list(sessions.values()):
            with suppress(LostError):
                session.link.send()


if __name__ == "__main__":
    main()
