"""The command as a child process that ends with its parent, and the last line of its stderr."""

import ctypes
import os
import signal
import threading
from collections.abc import Mapping, Sequence

from .errors import warn

Mask = set[int | signal.Signals]


def start(command: Sequence[str], env: Mapping[str, str], mask: Mask, stderr: int | None) -> int:
    """Start the command as a child that does not outlive this process; return its id."""
    me = os.getpid()
    if child := os.fork():
        return child
    try:
        end_with_parent(signal.SIGKILL)
        if os.getppid() != me:
            os._exit(137)
        if stderr is not None:
            os.dup2(stderr, 2)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        os._exit(become(command, env))
    finally:
        os._exit(127)


def become(command: Sequence[str], env: Mapping[str, str]) -> int:
    """Replace this process with the command; return 127 if that is impossible."""
    for number in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores them
        signal.signal(number, signal.SIG_DFL)
    try:
        os.execvpe(command[0], [*command], dict(env))  # noqa: S606  (the stage's own command)
    except OSError as error:
        warn(f"{command[0]}: {error.strerror}")
    return 127


def end_with_parent(number: int) -> None:
    """Let the kernel send this process a signal when its parent ends (Linux)."""
    set_parent_death_signal = 1
    ctypes.CDLL(None).prctl(set_parent_death_signal, number)


class Said:
    """Passes the command's stderr on and keeps its last line, unless stderr is a terminal."""

    def __init__(self) -> None:
        self._tail = b""
        self.end: int | None = None
        if not os.isatty(2):
            self._reader, self.end = os.pipe()

    def follow(self) -> None:
        """Start to pass on what the command writes, in a thread."""
        if self.end is not None:
            os.close(self.end)
            self._thread = threading.Thread(target=self._copy, daemon=True)
            self._thread.start()

    def last_line(self) -> str:
        """Return the last line of a command that has ended, or "" if stderr is a terminal."""
        if self.end is None:
            return ""
        self._thread.join(0.2)
        if self._thread.is_alive():  # a process that the command has left behind may still write
            streams = [(os.POSIX_SPAWN_DUP2, self._reader, 0), (os.POSIX_SPAWN_DUP2, 2, 1)]
            os.posix_spawnp("cat", ["cat"], os.environ, file_actions=streams, setsid=True)
        lines = self._tail.decode(errors="replace").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "")[:500]

    def _copy(self) -> None:
        while got := os.read(self._reader, 1 << 16):
            self._tail = (self._tail + got)[-4096:]
            while got:
                try:
                    got = got[os.write(2, got) :]
                except OSError:  # nobody reads stderr any more
                    got = b""
