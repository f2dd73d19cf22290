"""md5s as DVC writes them, locks, and files that are written whole or not at all."""

import fcntl
import hashlib
import json
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from .errors import FileError

AnyPath = str | os.PathLike[str]


def md5(path: AnyPath) -> str:
    """Return the md5 of a file or a folder as DVC writes it to dvc.lock; raises `OSError`.

    A folder's md5 ends in `.dir` and is that of its list of files, as in DVC's cache. Files that
    .dvcignore matches must not be in the folder, because DVC leaves them out.
    """
    path = Path(path)
    if path.is_dir():
        files = {file.relative_to(path).as_posix(): file for file in path.rglob("*")}
        listed = [
            {"md5": md5(file), "relpath": name}
            for name, file in sorted(files.items())
            if file.is_file()
        ]
        return hashlib.md5(json.dumps(listed).encode(), usedforsecurity=False).hexdigest() + ".dir"
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()


def _sync(path: Path) -> None:
    """Flush a file or a folder to disk, so that it survives a power failure."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def exclusive(folder: Path, why: str) -> Iterator[None]:
    """Hold the lock of a folder; the operating system releases it when the process ends.

    `why` is shown while waiting. Raises `FileError` if the folder cannot be made or locked.
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
def replacing(path: AnyPath) -> Iterator[Path]:
    """Yield a path to write a file or a folder to; if the block succeeds, it replaces `path`.

    Raises `FileError` if that fails, and leaves `path` as it was.
    """
    path = Path(path)
    partial, old = (path.with_name(f".{path.name}.{end}") for end in ("partial", "old.partial"))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove(partial)  # a link would be followed
        yield partial
        for written in [*partial.rglob("*"), partial] if partial.is_dir() else [partial]:
            _sync(written)
        if partial.is_dir() and path.is_dir():  # briefly missing, never half-written
            _remove(old)
            path.rename(old)
        partial.replace(path)
        _sync(path.parent)
    except OSError as error:
        named = Path(str(error.filename or path)).absolute()
        if not (named.is_relative_to(partial.absolute()) or path.absolute().is_relative_to(named)):
            raise  # about another file, which the block opened
        problem = f"cannot be written ({error.strerror})"
        raise FileError(path, problem, "it is left as it was") from None
    finally:
        with suppress(OSError):
            _remove(partial)
            _remove(old)


def _remove(path: Path) -> None:
    """Remove a file or a folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
