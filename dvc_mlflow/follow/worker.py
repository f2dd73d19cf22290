"""Follow a repository: whatever `dvc` runs in it, and whoever starts it, MLflow gets its rows.

A looker only looks (`stage_runs.py`). The worker here is the thread that uses DVC, git and MLflow.
It is level-triggered: it brings MLflow up to what it sees, and what it has missed it finds at its
next look, as long as a checkout, a ref or a commit still has it.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import ToolError
from .barrier import Questions
from .live_rows import LiveRows
from .new_results import NewResults
from .stage_runs import Looker
from .store_access import StoreAccess

_PAUSE = 0.1  # s between two steps
_BETWEEN = 0.5  # s between two looks at what is new
_MOST = 100  # errors that are remembered


class Worker:
    """Brings MLflow up to what runs and what is new in a repository; `say` gets lines for a user.

    `root` is the main repository, at which the `looker` looks. Without `history`, git's commits
    count only if they are new.
    """

    def __init__(
        self, root: Path, looker: Looker, say: Callable[[str], object], *, history: bool = True
    ) -> None:
        self._say, self._looker = say, looker
        self._rows = LiveRows(root, StoreAccess(root), say)
        self._new = NewResults(root, self._rows.is_for, say, history=history)
        self._asked = Questions(root)
        self._looked = -_BETWEEN
        self._said: dict[str, None] = {}
        """Errors that were said."""

    @property
    def is_idle(self) -> bool:
        """Whether no `dvc` has run for a while, and nothing is left to do."""
        return self._looker.is_quiet and not self._rows.are_open

    def follow(self, ends: Callable[[], bool]) -> None:
        """Follow until it is to end."""
        while not ends():
            self.step()
            self._looker.has_new.wait(_PAUSE if self._looker.runs else _BETWEEN)
            self._looker.has_new.clear()

    def close(self) -> None:
        """Leave the rows of what runs as they are, for the next follower."""
        self._looker.stop()
        self._rows.close()

    def step(self) -> None:
        """Do what there is to do."""
        asked = self._asked.since(self._looker.count)
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
        is_done = not any(map(self._rows.is_pending, self._looker.runs))
        if asked or time.monotonic() - self._looked > _BETWEEN:
            with self._errors_said():
                is_needed = self._looker.has_new.is_set
                is_done &= self._new.record(self._looker.runs, is_needed, at_once=bool(asked))
                self._looker.homes = self._new.homes
            self._looked = time.monotonic()
        if is_done:
            self._asked.answer(asked)

    @contextmanager
    def _errors_said(self) -> Iterator[None]:
        """Say what goes wrong, once, and go on: what is missing is done later."""
        try:
            yield
        except Exception as error:
            self._say_once(error)

    def _say_once(self, error: Exception) -> None:
        is_own = isinstance(error, ToolError | OSError)
        text = f"{error}" if is_own else f"{type(error).__name__}: {error}"
        if text not in self._said:
            self._say(" ".join(text.split())[:500])
            self._said = dict.fromkeys([*self._said, text][-_MOST:])
