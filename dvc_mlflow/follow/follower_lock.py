"""One follower for a repository on a machine; and how one is started that stays behind."""

import errno
import fcntl
import os
import sys
import time
from pathlib import Path
from typing import Self

from .. import processes
from ..place import own_folder

LOG = "follow.log"


class FollowerLock:
    """The lock of a repository's follower, which the system releases when its process ends.

    File systems can be shared, and each machine sees its own processes only: each has a lock.
    `descriptor` is that of a lock which was taken for this process by the one that started it.
    Raises `OSError` and `ProjectError`.
    """

    def __init__(self, root: Path, descriptor: int | None = None) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        path = own_folder(root) / f"follower.{os.uname().nodename}"
        self.descriptor = os.open(path, flags, 0o666) if descriptor is None else descriptor

    def take(self) -> bool:
        """Take the lock; return False if another process has it."""
        try:
            fcntl.flock(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                raise
            return False
        os.truncate(self.descriptor, 0)
        mark = f"{processes.process(os.getpid())} {self._number}"
        os.pwrite(self.descriptor, mark.encode(), 0)
        return True

    def release(self) -> None:
        """Let another process take it, and leave the file as it is: its age counts."""
        fcntl.flock(self.descriptor, fcntl.LOCK_UN)

    def touch(self) -> None:
        """Take note that somebody needs a follower."""
        os.utime(self.descriptor)

    @property
    def age(self) -> float:
        """The seconds since somebody needed one last."""
        return time.time() - os.fstat(self.descriptor).st_mtime

    @property
    def owner(self) -> int:
        """The id of the process that has taken it last, as it says itself, if that runs, or 0.

        To try the lock would keep another process from taking it.
        """
        mark, _, number = os.pread(self.descriptor, 80, 0).decode(errors="replace").partition(" ")
        pid = mark.partition("@")[0]
        if number != self._number or not pid.isdecimal():
            return 0  # nobody's, or a copy of another repository's
        return int(pid) if processes.process(int(pid[:9])) == mark else 0

    @property
    def _number(self) -> str:
        return f"{os.fstat(self.descriptor).st_ino}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.descriptor)


def start(root: Path) -> None:
    """Start a follower of the repository at `root` unless one is at work.

    It is in a session of its own and holds nobody's descriptor, so that `dvc repro | tee log` ends
    with `dvc`, and Ctrl-C does not reach it. It ends soon after the last `dvc`. Its lock is taken
    here, so that there is no moment without it. Raises `OSError` and `ProjectError`.
    """
    with FollowerLock(root) as lock:
        lock.touch()
        if not lock.take():
            return
        if child := os.fork():
            os.waitpid(child, 0)
            return
        import subprocess  # slow for `run`, which seldom starts one

        command = [sys.executable, "-P", "-m", "dvc_mlflow", "follow", "--until-idle"]
        try:  # its child is a grandchild, which nobody has to wait for
            with (own_folder(root) / LOG).open("wb") as log:
                subprocess.Popen(
                    [*command, "--lock", f"{lock.descriptor}"],
                    cwd=root,
                    env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    pass_fds=[lock.descriptor],
                    start_new_session=True,
                )
        finally:
            os._exit(0)
