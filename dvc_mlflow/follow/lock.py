"""One follower for a repository on a machine."""

import errno
import fcntl
import os
from pathlib import Path
from typing import Self

from .. import own_files


class Lock:
    """The lock of a repository's follower, which the system releases when its process ends.

    File systems can be shared, and each machine sees its own processes only: each has a lock.
    Raises `OSError`.
    """

    def __init__(self, root: Path) -> None:
        own_files.check(f"{root}")
        folder = root / own_files.FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        self._path = f"{folder}/follower.{os.uname().nodename}"
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        self._descriptor = os.open(self._path, flags, 0o666)

    def take(self) -> bool:
        """Take the lock; return False if another process has it."""
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                raise
            return False
        os.truncate(self._descriptor, 0)
        os.pwrite(self._descriptor, f"{os.getpid()}".encode(), 0)
        return True

    @property
    def owner(self) -> str:
        """The process id of who has it, as it says itself."""
        return os.pread(self._descriptor, 20, 0).decode(errors="replace")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)
