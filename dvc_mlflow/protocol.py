"""The protocol between a running stage and the recorder of its `dvc`: one JSON object per line.

The stage sends a `Request` and, at the end, how its command ended: `{"code", "signal", "said"}`.
The recorder sends `{"run_id"}` once it has opened a row (empty if it opened none) and, at the end,
`{"say", "code"}`: lines for the user, and exit status 1 if the stage's inputs changed, else 0. An
empty line only says that the recorder is alive.
"""

import fcntl
import json
import os
import socket
import sys
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from . import processes
from .safe_path import python_path

LATER = "`dvc-mlflow record` records it later"
TOKEN = "dvc.token"  # noqa: S105  (no password)
"""The tag of the runs that a stage's command itself opens in MLflow."""


class Request(NamedTuple):
    """What a stage sends to its recorder when it begins."""

    stage: str
    """`DVC_STAGE`, relative to the folder that `dvc` was started in."""
    folder: str
    """The stage's working directory."""
    began: int
    """Nanoseconds since 1970."""
    token: str
    """The value of `TOKEN`."""
    params: str
    """The text of the params.yaml in that folder before the command began, or ""."""


class LostError(Exception):
    """The other end is gone, or does not answer."""


class Link:
    """One end of the connection."""

    def __init__(self, end: socket.socket) -> None:
        self._end, self._text = end, b""
        self._sending = threading.Lock()  # a message, and a sign of life between two
        end.setblocking(True)
        end.settimeout(20)

    def fileno(self) -> int:
        """Return the descriptor to wait on for something to `receive`."""
        return self._end.fileno()

    def send(self, message: object = None) -> None:
        """Send an object, or an empty line; raises `LostError`."""
        text = "" if message is None else json.dumps(message)
        try:
            with self._sending:
                self._end.sendall(text.encode() + b"\n")
        except OSError as error:
            raise LostError(f"{error.strerror or error}") from None

    def receive(self) -> list[Any]:
        """Return the objects that have arrived, if any; raises `LostError`."""
        try:
            got = self._end.recv(1 << 20)
        except OSError as error:
            raise LostError(f"{error.strerror or error}") from None
        if not got:
            raise LostError("it has ended")
        *lines, self._text = (self._text + got).split(b"\n")
        return [json.loads(line) for line in lines if line]

    def close(self) -> None:
        """Close the connection."""
        self._end.close()


class Place(NamedTuple):
    """Where the recorder of one `dvc` process listens: a socket in a folder of its project."""

    folder: str
    name: str

    @contextmanager
    def lock(self) -> Iterator[str]:
        """Yield the socket's path, while no other process can start or end a recorder here."""
        folder = os.open(self.folder, os.O_RDONLY)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            # A socket's path has at most 107 bytes.
            yield f"/proc/self/fd/{folder}/{self.name}"
        finally:
            os.close(folder)


def connect(dvc: int) -> Link:
    """Connect to the recorder of a `dvc` process; start it if there is none.

    If that fails, start one for this stage alone. Raises `LostError` if that fails, too.
    """
    try:
        return Link(_shared(dvc))
    except OSError:
        pass
    try:
        own, its = socket.socketpair()
        with its:
            _start(its, "private", 0, "")
        return Link(own)
    except OSError as error:
        raise LostError(f"no recorder can be started ({error.strerror})") from None


def _shared(dvc: int) -> socket.socket:
    mark = processes.process(dvc)
    os.close(os.pidfd_open(dvc))  # the recorder watches it
    place = Place(f"{os.environ['DVC_ROOT']}/.dvc/tmp/dvc-mlflow", _name(mark))
    Path(place.folder).mkdir(parents=True, exist_ok=True)
    found = socket.socket(socket.AF_UNIX)
    with place.lock() as path:
        try:
            found.connect(path)
        except (FileNotFoundError, ConnectionRefusedError):
            with socket.socket(socket.AF_UNIX) as listener:
                Path(path).unlink(missing_ok=True)  # of a recorder that was killed
                listener.bind(path)
                listener.listen(64)
                _start(listener, place.folder, dvc, place.name)
            found.connect(path)
    return found


def _name(mark: str) -> str:
    """Return the name of a recorder's socket: one for each `dvc` process and environment."""
    own = {k: v for k, v in os.environ.items() if k not in ("DVC_STAGE", "PWD", "OLDPWD", "SHLVL")}
    text = "\0".join([sys.executable, mark, *(f"{k}={v}" for k, v in sorted(own.items()))])
    return f"{mark}.{zlib.crc32(text.encode(errors='surrogateescape')):08x}"


def _start(end: socket.socket, folder: str, dvc: int, name: str) -> None:
    """Start a recorder in its own session, with one end of a connection or a listening socket.

    `-P` keeps it from importing a `yaml.py` or a folder mlflow/ of the user's.
    """
    if os.fork():
        return
    try:
        os.setsid()
        null = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(null, stream)
        os.set_inheritable(end.fileno(), True)
        words = [f"{end.fileno()}", folder, f"{dvc}", name]
        command = [sys.executable, "-P", "-m", f"{__package__}.recorder", *words]
        # NumPy's idle threads would take 0.15 CPU-seconds from the stage.
        env = {**os.environ, "PYTHONPATH": python_path(), "OPENBLAS_NUM_THREADS": "1"}
        os.execve(sys.executable, command, env)  # noqa: S606  (this program)
    finally:
        os._exit(1)
