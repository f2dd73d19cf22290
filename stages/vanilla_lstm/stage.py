"""What holds for every stage: errors, signals, unchanged inputs, no orphans."""

import fcntl
import gc
import hashlib
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType

from vanilla_lstm.errors import FileError, StageError

_SIGNALS = (signal.SIGINT, signal.SIGTERM)

_received: list[int] = []
_uninterrupted: list[None] = []  # one for each `uninterrupted` block that has begun
_inputs: dict[Path, str | None] = {}


def run(main: Callable[[], None], reads: Sequence[Path]) -> None:
    """Run a stage in the working directory and exit with status 1 if it cannot do its work.

    `reads` are the files that it reads.
    """
    # Imports make a million objects and no garbage: looking for it takes a fifth of a stage's time.
    gc.set_threshold(1_000_000)
    for number in _SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _stop)
    try:
        check_wanted()
        with exclusive(Path("data"), "an earlier stage is still at work"):
            code = sorted(Path(__file__).parent.glob("*.py"))
            _inputs.update({path: _md5_if_any(path) for path in [*reads, Path(sys.argv[0]), *code]})
            check_wanted()
            main()
            check()
    except Exception as error:
        _exit_if_stopped()
        if not isinstance(error, StageError):
            raise
        sys.exit(f"{error}")
    finally:
        gc.freeze()  # nor is there any to look for at the end


def md5(path: Path) -> str:
    """Return the md5 of a file, as DVC writes it in dvc.lock; raises `OSError`."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()


def check() -> None:
    """Raise `StageError` if nobody could use the stage's results.

    DVC notes in dvc.lock what inputs and code are after the stage. Where one of them changed
    meanwhile, the results would be of neither version (treeverse/dvc#11058).
    """
    check_wanted()
    for path, before in _inputs.items():
        if _md5_if_any(path) != before:
            problem = "changed while the stage ran, so its results would be of neither version"
            raise FileError(path, problem, "run `dvc repro` again")


def check_wanted() -> None:
    """Exit if the stage was stopped; raise `StageError` if the `dvc` that runs it was killed.

    Whoever adopts an orphan is of another process group. No shell stands between the two, as the
    commands in dvc.yaml begin with `exec`.
    """
    _exit_if_stopped()
    if "DVC_STAGE" in os.environ and os.getpgid(os.getppid()) != os.getpgrp():
        raise StageError("the dvc that started this stage is gone; run `dvc repro` again")


def stopped() -> bool:
    """Whether a signal has told the stage to end."""
    return bool(_received)


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Put off the exit for a signal to the end of the block; blocks may lie in each other."""
    _uninterrupted.append(None)
    try:
        yield
    finally:
        _uninterrupted.pop()
    if not _uninterrupted:
        _exit_if_stopped()


@contextmanager
def exclusive(folder: Path, why: str) -> Iterator[None]:
    """Hold the lock of a folder; the operating system frees it when the process ends.

    Raises `FileError` if the folder cannot be made or locked.
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


def _md5_if_any(path: Path) -> str | None:
    try:
        return md5(path)
    except OSError:
        return None  # the stage itself says what is wrong with it


def _exit_if_stopped() -> None:
    """Exit even if native code answered the handler's exit with an error of its own, or went on."""
    if _received:
        sys.exit(128 + _received[0])


def _stop(signum: int, frame: FrameType | None) -> None:
    for number in _SIGNALS:  # a second one would cut short what the first one makes the stage do
        signal.signal(number, signal.SIG_IGN)
    _received.append(signum)
    # Native code that is in the middle of something prints what it makes of the exit.
    sys.excepthook = sys.unraisablehook = lambda *_: None  # type: ignore[assignment]
    if not _uninterrupted:
        _exit_if_stopped()
