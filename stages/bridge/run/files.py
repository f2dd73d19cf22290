"""md5s as DVC writes them, locks, and files that are written whole or not at all."""

import fcntl
import hashlib
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from .errors import FileError


def md5(path: Path) -> str:
    """Return the md5 of a file as DVC writes it to dvc.lock; raises `OSError`."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()


def _sync(path: Path) -> None:
    """Have the disk hold what a file or a folder is now, also if the machine loses its power."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def exclusive(folder: Path, why: str) -> Iterator[None]:
    """Hold the lock of a folder; the operating system releases it when the process ends.

    `why` is shown while it has to wait. Raises `FileError` if the folder cannot be made or locked.
    """
    with ExitStack() as opened:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock = os.open(folder, os.O_RDONLY)
            opened.callback(os.close, lock)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                print(f"waiting for {folder}: {why}", file=sys.stderr)
                fcntl.flock(lock, fcntl.LOCK_EX)
        except OSError as error:
            problem = f"cannot be used ({error.strerror})"
            raise FileError(folder, problem, "must be a folder") from None
        yield


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a path to write to; when the block ends well, what is there replaces `path`.

    Raises `FileError` if that fails, and leaves `path` as it was.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(exist_ok=True)
        partial.unlink(missing_ok=True)  # a link would be followed
        yield partial
        _sync(partial)
        partial.replace(path)
        _sync(path.parent)
    except OSError as error:
        problem = f"cannot be written ({error.strerror})"
        raise FileError(path, problem, "what was there is kept") from None
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
