"""The protocol between a running stage and the recorder of its `dvc`.

The stage sends what a `Request` needs and, at the end, how its command ended: `{"code", "signal",
"said"}`, the last lines of a failed one's stderr. The recorder sends `{"recorded"}` if it is asked
whether the stage is recorded, `{"run_id"}` once it has opened a row (empty if it opened none) and,
at the end, `{"say", "code", "done"}`: lines for the user, exit status 1 if the stage's inputs
changed, else 0, and whether nothing is left to record. An empty message only says that the sender
is alive.

Both ends run the same Python, as the same user, so messages are marshalled: a JSON parser would
take a stage as long to import as all the rest.
"""

import _socket
import _thread
import marshal
import os
import sys
import zlib

from .. import own_files, processes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

LATER = "`dvc-mlflow record` records it later"
_HEAD = 4  # bytes of a message's length
_LONGEST = 200_000_000  # bytes of a message: the text of params.yaml is in one


class LostError(Exception):
    """The other end is gone, or does not answer."""


class Link:
    """One end of the connection."""

    def __init__(self, end: _socket.socket) -> None:
        self._end, self._got = end, b""
        self._sending = _thread.allocate_lock()  # a message, and a sign of life between two
        end.settimeout(20)

    @property
    def is_own(self) -> bool:
        """Whether the other end is a process of the same user: messages are trusted."""
        given = self._end.getsockopt(_socket.SOL_SOCKET, _socket.SO_PEERCRED, 12)
        return int.from_bytes(given[4:8], sys.byteorder) == os.getuid()

    def fileno(self) -> int:
        """Return the descriptor to wait on for something to `receive`."""
        return self._end.fileno()

    def send(self, message: "dict[str, Any] | None" = None) -> None:
        """Send an object, or a sign of life; raises `LostError`."""
        body = b"" if message is None else marshal.dumps(message)
        try:
            with self._sending:
                self._end.sendall(len(body).to_bytes(_HEAD, "big") + body)
        except OSError as error:
            raise LostError(f"{error.strerror or error}") from None

    def receive(self) -> "list[Any]":
        """Return the objects that have arrived, if any; raises `LostError`."""
        try:
            got = self._end.recv(1 << 20)
        except OSError as error:
            raise LostError(f"{error.strerror or error}") from None
        if not got:
            raise LostError("it has ended")
        self._got += got
        found = []
        while len(self._got) >= (end := _HEAD + int.from_bytes(self._got[:_HEAD], "big")):
            body, self._got = self._got[_HEAD:end], self._got[end:]
            try:
                found += [marshal.loads(body)] if body else []  # noqa: S302  (our own process's)
            except (EOFError, TypeError, ValueError):
                raise LostError("it has sent what is no message") from None
        if end > _LONGEST:
            raise LostError("it has sent too long a message")
        return found

    def close(self) -> None:
        """Close the connection."""
        self._end.close()


class Socket:
    """Where the recorder of one `dvc` process listens: a socket in a folder of its project.

    In a block with it, which gets the socket's path, no other process starts or ends a recorder.
    """

    def __init__(self, folder: str, name: str) -> None:
        self.folder, self.name = folder, name

    def __enter__(self) -> str:
        self._lock = processes.Locked(self.folder)
        # A socket's path has at most 107 bytes.
        return f"/proc/self/fd/{self._lock.__enter__()}/{self.name}"

    def __exit__(self, *_: object) -> None:
        self._lock.__exit__()


def connect(dvc: int, noted: str = "", *, is_shared: bool = False) -> Link:
    """Connect to the recorder of a `dvc` process; start it if there is none.

    `noted` is where `dvc-mlflow dvc` may have started one. If a recorder cannot be started, start
    one for this command alone, unless it has to be shared with the stage's other commands. Raises
    `LostError` if that fails, too.
    """
    found = _socket.socket(_socket.AF_UNIX)
    try:
        try:
            with early(noted) as path:
                found.connect(path)
        except (FileNotFoundError, ConnectionRefusedError):
            _connect_or_start(found, dvc)
        link = Link(found)
        if not link.is_own:
            raise LostError("another user listens in its place")
        return link
    except OSError as error:
        if is_shared:
            raise LostError(f"no recorder can be started ({error.strerror})") from None
    try:
        import socket

        own, its = socket.socketpair()
        with its:
            _start(its.fileno(), "private", 0, "")
        return Link(own)
    except OSError as error:
        raise LostError(f"no recorder can be started ({error.strerror})") from None


def _connect_or_start(end: _socket.socket, dvc: int) -> None:
    mark = processes.process(dvc)
    os.close(os.pidfd_open(dvc))  # the recorder watches it
    at = Socket(f"{_project()}/{own_files.FOLDER}", _name(mark))
    os.makedirs(at.folder, exist_ok=True)
    with at as path:
        try:
            end.connect(path)
        except (FileNotFoundError, ConnectionRefusedError):
            _listen(at, path, dvc)
            end.connect(path)


def _project() -> str:
    """Return the project of the stage; a shell may have another one's DVC_ROOT, which DVC keeps."""
    given, here = os.environ["DVC_ROOT"], os.getcwd()
    is_there = os.path.isdir(f"{given}/.dvc")
    if is_there and f"{here}/".startswith(f"{os.path.realpath(given)}/"):
        return given
    above = here
    while above != "/" and not os.path.isdir(f"{above}/.dvc"):
        above = os.path.dirname(above)
    return given if above == "/" else above


def early(noted: str) -> Socket:
    """Return where a recorder listens that `dvc-mlflow dvc` has started, beside its notes."""
    folder, _, name = noted.rpartition("/")
    return Socket(folder, f"{name}.early")


def start_early(noted: str, dvc: int) -> None:
    """Start the recorder of a `dvc` that has just started: both import at the same time."""
    at = early(noted)
    try:
        with at as path:
            _listen(at, path, dvc, "early")
    except OSError:
        pass  # then the first recorded stage starts it


def _listen(at: Socket, path: str, dvc: int, *more: str) -> None:
    """Start a recorder that listens there."""
    if os.path.lexists(path):
        os.unlink(path)  # of a recorder that was killed
    listener = _socket.socket(_socket.AF_UNIX)
    listener.bind(path)
    listener.listen(64)
    _start(listener.fileno(), at.folder, dvc, at.name, *more)
    listener.close()


def _name(mark: str) -> str:
    """Return the name of a recorder's socket: one for each `dvc` process and environment."""
    own = {k: v for k, v in os.environ.items() if k not in ("DVC_STAGE", "PWD", "OLDPWD", "SHLVL")}
    text = "\0".join([sys.executable, mark, *(f"{k}={v}" for k, v in sorted(own.items()))])
    return f"{mark}.{zlib.crc32(text.encode(errors='surrogateescape')):08x}"


def _start(end: int, folder: str, dvc: int, *more: str) -> None:
    """Start a recorder in its own session, with one end of a connection or a listening socket.

    `-P` keeps it from importing a `yaml.py` or a folder mlflow/ of the user's.
    """
    import subprocess

    from ..safe_path import python_path

    # NumPy's idle threads would take 0.15 CPU-seconds from the stage.
    env = {**os.environ, "PYTHONPATH": python_path(), "OPENBLAS_NUM_THREADS": "1"}
    null = subprocess.DEVNULL
    recorder = subprocess.Popen(
        [sys.executable, "-P", "-m", f"{__package__}.recorder", f"{end}", folder, f"{dvc}", *more],
        env=env,
        stdin=null,
        stdout=null,
        stderr=null,
        pass_fds=[end],
        start_new_session=True,
    )
    recorder.returncode = 0  # it outlives this process, which need not wait for it
