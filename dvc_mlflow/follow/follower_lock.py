"""One follower for a repository on a machine; and how one is started that stays behind."""

import fcntl
import os
import sys
import time
from pathlib import Path
from typing import Self

from ..place import own_folder
from ..processes import process

LOG = "follow.log"


class FollowerLock:
    """The lock of a repository's follower, which the system releases when its process ends.

    File systems can be shared, and each machine sees its own processes only: each has a lock.
    Raises `OSError` and `ProjectError`.
    """

    def __init__(self, root: Path) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        path = own_folder(root) / f"follower.{os.uname().nodename}"
        self._descriptor = os.open(path, flags, 0o666)

    def take(self) -> bool:
        """Take the lock; return False if another process has it."""
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True

    def sign(self) -> None:
        """Write down which process has it, for the shell script `dvc-mlflow`."""
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, f"{process(os.getpid())}\n".encode(), 0)

    def touch(self) -> None:
        """Take note that somebody needs a follower."""
        os.utime(self._descriptor)

    @property
    def age(self) -> float:
        """The seconds since somebody needed one last."""
        return time.time() - os.fstat(self._descriptor).st_mtime

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)


def start(root: Path) -> None:
    """Start a follower of the repository at `root` unless one is at work.

    It is in a session of its own and holds nobody's descriptor, so that `dvc repro | tee log` ends
    with `dvc`, and Ctrl-C does not reach it. It ends soon after the last `dvc`. Of several that are
    started at once, one takes the lock. Raises `OSError` and `ProjectError`.
    """
    with FollowerLock(root) as lock:
        lock.touch()
        if not lock.take():
            return
    if child := os.fork():
        os.waitpid(child, 0)
        return
    import subprocess  # slow for `run`, which seldom starts one

    try:  # its child is a grandchild, which nobody has to wait for
        with (own_folder(root) / LOG).open("wb") as log:
            subprocess.Popen(
                [sys.executable, "-P", "-m", "dvc_mlflow", "follow", "--until-idle"],
                cwd=root,
                env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
    finally:
        os._exit(0)
