"""Start a follower for whoever runs `dvc` where none is at work: it stays behind by itself."""

import os
import sys
from pathlib import Path

from ..place import own_folder
from .follower_lock import FollowerLock

LOG = "follow.log"


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
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_TRUNC
        log = os.open(own_folder(root) / LOG, flags, 0o666)
        if child := os.fork():
            os.close(log)
            os.waitpid(child, 0)
            return
        try:  # a grandchild, which nobody has to wait for
            os.setsid()
            if os.fork():
                os._exit(0)
            _become(root, os.open(os.devnull, os.O_RDONLY), log, lock.descriptor)
        finally:
            os._exit(127)


def _become(root: Path, null: int, log: int, lock: int) -> None:
    for descriptor, number in ((null, 0), (log, 1), (log, 2)):
        os.dup2(descriptor, number)
    os.closerange(3, lock)
    os.closerange(lock + 1, os.sysconf("SC_OPEN_MAX"))
    os.set_inheritable(lock, True)
    os.chdir(root)
    env = os.environ | {"OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-P", "-m", "dvc_mlflow", "follow", "--until-idle"]
    command += ["--lock", f"{lock}"]
    os.execve(command[0], command, env)  # noqa: S606  (this program)
