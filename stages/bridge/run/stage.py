"""Rules for every stage: errors, signals, unchanged inputs, no orphans."""

import gc
import io
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from .errors import FileError, StageError
from .files import AnyPath, exclusive, md5, replacing


class Stage:
    """A running stage: its inputs must not change, and the `dvc` that started it must be alive.

    Create one with `run`.
    """

    def __init__(self, watched: Sequence[AnyPath]) -> None:
        self._watched = {Path(path): _md5_if_any(Path(path)) for path in watched}
        self._received: list[int] = []
        self.check()

    @property
    def stopped(self) -> bool:
        """Whether a signal asked the stage to stop during a `stoppable` block."""
        return bool(self._received)

    def check(self) -> None:
        """Exit if a signal asked the stage to stop; raise `StageError` if its `dvc` is gone.

        An orphan's new parent belongs to another process group. No shell stands between the two,
        because the commands in dvc.yaml begin with `exec`.
        """
        if self._received:
            sys.exit(128 + self._received[0])
        if "DVC_STAGE" in os.environ and os.getpgid(os.getppid()) != os.getpgrp():
            raise StageError("the dvc that started this stage is gone; run `dvc repro` again")

    def check_inputs(self) -> None:
        """Raise `FileError` if an input or the code has changed since the stage began.

        DVC records their md5s after the stage has run, so it would pair results with inputs that
        did not make them (treeverse/dvc#11058).
        """
        self.check()
        for path, before in self._watched.items():
            if _md5_if_any(path) != before:
                problem = "changed while the stage ran, so its results would match neither version"
                raise FileError(path, problem, "run `dvc repro` again")

    def write(self, path: AnyPath, content: bytes | memoryview) -> None:
        """Give `path` the content whole or not at all; raises `StageError`."""
        with self.writing(path) as partial:
            partial.write_bytes(content)

    @contextmanager
    def writing(self, path: AnyPath) -> Iterator[Path]:
        """Yield a path to write to, for libraries that write files; otherwise like `write`."""
        with replacing(path) as partial:
            yield partial
            self.check_inputs()

    @contextmanager
    def stoppable(self) -> Iterator[None]:
        """Let SIGINT and SIGTERM end the block at its next `check`, not where they arrive.

        Outside such blocks they end the process at once, as nothing can be lost there.
        """
        numbers = (signal.SIGINT, signal.SIGTERM)
        before = {n: signal.getsignal(n) for n in numbers}
        handled = [n for n in numbers if before[n] is not signal.SIG_IGN]
        for number in handled:
            signal.signal(number, lambda number, _: self._received.append(number))
        try:
            yield
        finally:
            for number in handled:
                signal.signal(number, before[number])
        self.check()


class _Report(io.TextIOWrapper):
    """A stage's output. If nobody reads it any more or the disk is full, the stage continues."""

    def write(self, text: str) -> int:
        with suppress(OSError):
            super().write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError):
            super().flush()


def run(
    main: Callable[[Stage], None],
    reads: Sequence[AnyPath] = (),
    code: AnyPath | None = None,
    folder: AnyPath = "data",
) -> None:
    """Run a stage in the working directory; exit with status 1 if it cannot do its work.

    `reads` are the files and folders that it reads, and `code` is the folder of its code (by
    default its script's). Neither may change while it runs. Stages that write to the
    same `folder` take turns.
    """
    # Imports create a million objects and no garbage; collecting takes a fifth of a stage's time.
    gc.set_threshold(1_000_000)

    def say_what_is_gone() -> None:
        if "DVC_STAGE" in os.environ:  # DVC has deleted the outputs
            cure = f"`dvc checkout && git checkout {folder}` brings them back"
            print(f"the earlier results are no longer in {folder}/; {cure}", file=sys.stderr)

    def end(number: int, _: object) -> None:
        say_what_is_gone()
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)

    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, end)
    for name in ("stdout", "stderr"):
        if stream := getattr(sys, name):
            setattr(sys, name, _Report(stream.detach(), line_buffering=True))
    script = Path(sys.argv[0])
    modules = sorted(_modules(code or script.parent)) if script.is_file() else []
    complete = False
    try:
        with exclusive(Path(folder), "an earlier stage is still at work"):
            stage = Stage([*reads, *modules])
            main(stage)
            stage.check_inputs()
        complete = True
    except StageError as error:
        print(error, file=sys.stderr)
        sys.exit(1)
    finally:
        if not complete:
            say_what_is_gone()
        gc.freeze()  # skip collection at exit too


def _modules(code: AnyPath) -> Iterator[Path]:
    """Yield the modules below a folder, without hidden folders and virtual environments."""
    for folder, folders, files in os.walk(code):
        inside = [name for name in folders if not name.startswith(".")]
        folders[:] = [name for name in inside if not Path(folder, name, "pyvenv.cfg").exists()]
        yield from (Path(folder, name) for name in files if name.endswith(".py"))


def _md5_if_any(path: Path) -> str | None:
    try:
        return md5(path)
    except OSError:
        return None  # the stage itself reports what is wrong with it
