"""Follow a repository: whatever `dvc` runs in it, and whoever starts it, MLflow gets its rows.

A looker only looks (`running.py`). The worker here is the thread that uses DVC, git and MLflow. It
is level-triggered: it brings MLflow up to what it sees, and what it has missed it finds at its next
look, as long as a checkout, a ref or a commit still has it.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import ToolError
from .known import RETRY, Known
from .live_rows import LiveRows
from .new_results import NewResults
from .running import Looker

_PAUSE = 0.1  # s between two steps
_BETWEEN = 0.5  # s between two looks at what is new
_MOST = 100  # errors that are remembered


class Worker:
    """Brings MLflow up to what runs and what is new in a repository; `say` gets lines for a user.

    `root` is the main repository.
    """

    def __init__(self, root: Path, say: Callable[[str], object]) -> None:
        self._say = say
        self._rows = LiveRows(root, Known(root, RETRY), say)
        self._new = NewResults(root, self._rows.is_for, say)
        self._looker = Looker([])
        self._looked = -_BETWEEN
        self._said: dict[str, None] = {}
        """Errors that were said."""

    def follow(self, ends: Callable[[], bool]) -> None:
        """Follow until it is to end."""
        self._new.list()
        self._looker.homes = self._new.homes
        self._looker.start()
        try:
            while not ends():
                self.step()
                self._looker.has_new.wait(_PAUSE if self._looker.runs else _BETWEEN)
                self._looker.has_new.clear()
        finally:
            self._looker.stop()
            self._rows.close()

    def step(self) -> None:
        """Do what there is to do."""
        for run in self._looker.runs:
            with self._errors_said():
                if self._rows.bring(run):
                    self._looker.take(run)
        error, self._looker.error = self._looker.error, None
        if error:
            self._say_once(error)
        with self._errors_said():
            for home in self._rows.drop_unused():
                self._new.look_again(home)
        if time.monotonic() - self._looked > _BETWEEN:
            with self._errors_said():
                self._new.record(self._looker.runs)
                self._looker.homes = self._new.homes
            self._looked = time.monotonic()

    @contextmanager
    def _errors_said(self) -> Iterator[None]:
        """Say what goes wrong, once, and go on: what is missing is done later."""
        try:
            yield
        except Exception as error:
            self._say_once(error)

    def _say_once(self, error: Exception) -> None:
        is_own = isinstance(error, ToolError)
        text = f"{error}" if is_own else f"{type(error).__name__}: {error}"
        if text not in self._said:
            self._say(" ".join(text.split())[:500])
            self._said = dict.fromkeys([*self._said, text][-_MOST:])
