"""Read files of a work tree: whatever the tool itself reads of one comes through here.

A clone, a stage or a colleague can have put anything there: a link that leads out, a pipe, a file
without an end.
"""

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO

LARGEST = 64_000_000
"""The most bytes of a file that is read into memory."""


class RefusedError(OSError):
    """A file of the work tree that is not read; the message says why."""

    def __str__(self) -> str:
        return f"{self.filename} {self.strerror}"


def read(
    path: str | Path,
    root: str | Path,
    *,
    of_dvc: bool = False,
    cached: str = "",
    most: int = LARGEST,
    start: int = 0,
    size: int = LARGEST,
) -> bytes:
    """Return what a file below `root` has from the byte `start` on, at most `size` bytes.

    Raises what `opened` raises, and `RefusedError` if the file has more than `most` bytes.
    """
    with opened(path, root, of_dvc=of_dvc, cached=cached) as file:
        if os.fstat(file.fileno()).st_size > most:
            rule = f"has more than {most // 1_000_000} MB, so it is not read"
            raise RefusedError(errno.EFBIG, rule, f"{path}")
        file.seek(start)
        return file.read(size)


def check(path: str | Path, root: str | Path, *, of_dvc: bool = False) -> None:
    """Raise `RefusedError` for a file that DVC would read next, if it would not be read here."""
    if os.path.exists(path):
        read(path, root, of_dvc=of_dvc, size=0)


def opened(
    path: str | Path, root: str | Path, *, of_dvc: bool = False, cached: str = ""
) -> BinaryIO:
    """Open a regular file below `root`; no link on the way to it leads out.

    A link may lead to `cached`, the file in DVC's cache that has the md5 in dvc.lock. What git and
    DVC keep for themselves is not opened, but for DVC's own files where these are meant. Raises
    `RefusedError`, and `OSError` where there is nothing to open.
    """
    real = os.path.realpath(path)
    if not (is_inside(real, root, of_dvc=of_dvc) or (cached and real == os.path.realpath(cached))):
        raise RefusedError(errno.EPERM, "leads out of the repository, so it is not read", f"{path}")
    # Without waiting for somebody to write to a pipe.
    descriptor = os.open(real, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise RefusedError(errno.EINVAL, "is not a regular file, so it is not read", f"{path}")
    return open(descriptor, "rb")


def is_inside(path: str | Path, root: str | Path, *, of_dvc: bool = False) -> bool:
    """Whether a path, or what it links to, is below `root`, and not in a folder of git or DVC."""
    inner = os.path.relpath(os.path.realpath(path), os.path.realpath(root)).split(os.sep)
    return inner[0] != os.pardir and (of_dvc or not {".git", ".dvc"} & {*inner})
