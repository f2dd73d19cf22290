"""The command as a child process that ends with its parent, and the end of its stderr."""

import _signal as signal  # `signal` itself is slow for what DVC starts for each command
import _thread
import os
from _collections_abc import Mapping, Sequence

from ..errors import warn
from ..processes import end_with_parent

Mask = set[int]


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


_LINES, _BYTES = 100, 100_000
"""How much of the end of stderr is kept, at most."""


class Said:
    """Passes the command's stderr on and keeps its end, unless stderr is a terminal."""

    def __init__(self) -> None:
        self._tail = b""
        self._copying = _thread.allocate_lock()
        self.end: int | None = None
        if not os.isatty(2):
            self._reader, self.end = os.pipe()

    def follow(self) -> None:
        """Start to pass on what the command writes, in a thread."""
        if self.end is not None:
            os.close(self.end)
            self._copying.acquire()
            _thread.start_new_thread(self._copy, ())

    def finish(self) -> str:
        """Stop when the command has ended; return its last lines, or "" if stderr is a terminal.

        What a process that the command has left behind still writes, `cat` passes on.
        """
        if self.end is None:
            return ""
        if not self._copying.acquire(timeout=0.2):
            streams = [(os.POSIX_SPAWN_DUP2, self._reader, 0), (os.POSIX_SPAWN_DUP2, 2, 1)]
            os.posix_spawnp("cat", ["cat"], os.environ, file_actions=streams, setsid=True)
        return "".join(self._tail.decode(errors="replace").splitlines(keepends=True)[-_LINES:])

    def _copy(self) -> None:
        while got := os.read(self._reader, 1 << 16):
            self._tail = (self._tail + got)[-_BYTES:]
            while got:
                try:
                    got = got[os.write(2, got) :]
                except OSError:  # nobody reads stderr any more
                    got = b""
        self._copying.release()
