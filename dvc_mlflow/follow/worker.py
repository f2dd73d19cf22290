"""Follow a repository: whatever `dvc` runs in it, and whoever starts it, MLflow gets its rows.

It is level-triggered: it brings MLflow up to what it sees, and what it has missed it finds at its
next look, as long as a checkout, a ref or a commit still has it.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import ProjectError, StoreError, ToolError
from .live_rows import LiveRows
from .new_results import NewResults
from .project_homes import rested, stamp
from .stage_runs import Looker, StageRun

RETRY = 30.0  # s for which nothing is asked of a store that has failed
_PAUSE, _REST = 0.1, 0.3  # s between two looks: while a `dvc` is at work, and else
_BETWEEN = 0.5  # s between two looks at what is new


class Worker:
    """Brings MLflow up to what runs and what is new; `say` gets lines for a user.

    `root` is the main repository, at which the `looker` looks; `new` says what is new in it.
    """

    def __init__(
        self, root: Path, looker: Looker, new: NewResults, say: Callable[[str], object]
    ) -> None:
        self._looker, self._new = looker, new
        self._rows = LiveRows(root, looker, new, say)
        self._looked = self._away = -RETRY
        self._failed: dict[StageRun, tuple[float, float]] = {}
        """When what has failed for a stage is tried again, and the pause until then."""
        self._busy = time.monotonic()

    @property
    def idle(self) -> float:
        """For how many seconds nothing has run, and nothing was left to do."""
        return time.monotonic() - self._busy

    def follow(self, ends: Callable[[], bool]) -> None:
        """Follow until it is to end; what runs then is left for the next follower."""
        while not ends():
            with self._errors_said():
                self._looker.look()
            is_busy = self._looker.is_busy
            if is_busy or self._rows.run_ids:
                self._busy = time.monotonic()
            if time.monotonic() - self._away > RETRY:
                self.step()
            time.sleep(_PAUSE if is_busy else _REST)

    def step(self) -> None:
        """Do what there is to do."""
        for run in [*self._looker.runs]:
            if time.monotonic() > self._failed.get(run, (0, 0))[0]:
                with self._errors_said(run):
                    if self._rows.bring(run):
                        self._looker.runs.remove(run)
                        self._failed.pop(run, None)
        with self._errors_said():
            self._rows.close_unused()
        if time.monotonic() - self._looked > _BETWEEN:
            with self._errors_said():
                self._new.live_runs = self._rows.run_ids
                running = {run.experiment for run in self._looker.runs} - {""}
                self._new.record(self._rows.is_new, running)
                self._looker.homes = self._new.homes
            self._looked = time.monotonic()

    @contextmanager
    def _errors_said(self, of: StageRun | None = None) -> Iterator[None]:
        """Say what goes wrong, once, and go on: what is missing is done later.

        What DVC cannot read `of` a stage can be half written for a moment.
        """
        try:
            yield
        except Exception as error:
            kind = "" if isinstance(error, ToolError | OSError) else f"{type(error).__name__}: "
            if isinstance(error, StoreError):
                self._away = time.monotonic()
                self._new.look_again()
            if of is not None:
                pause = min(2 * self._failed.get(of, (0, _BETWEEN / 2))[1], RETRY)
                self._failed[of] = time.monotonic() + pause, pause
                if isinstance(error, ProjectError) and not rested(map(stamp, (of.file, of.lock))):
                    return
            self._new.say_once([" ".join(f"{kind}{error}".split())[:500]])
