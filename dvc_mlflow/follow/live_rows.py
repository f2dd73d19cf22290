"""The rows of what runs: begun, followed and ended as DVC says that the stages are."""

import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from ..errors import ProjectError, masked
from ..place import address
from ..project import Project, running
from ..project.workspace import begin_at
from ..record.changed_inputs import tags as changed_tags
from ..rows.commits import named_experiments
from ..rows.origin import of_experiment
from ..rows.result import Result, State, read_state
from .dvc_processes import is_alive, is_stopped
from .live_row import LiveRow, members, results_of, without_outdated
from .rwlock import holds_lock, stamp
from .stage_runs import StageRun
from .store_access import RETRY, StoreAccess

_HALF_WRITTEN = 50_000_000  # ns: a file that is older is whole
_UNTIL_FAILED = 0.5  # s after which a stage without a result has failed
_RESTS = 500_000_000  # ns: while `dvc` goes on, a dvc.lock that is younger proves no failure
_UNTIL_LOST = 3.0  # s after which one that nobody can tell of has no result
_UNTIL_FETCHED = 60.0  # s after which nobody fetches a result that only a temporary copy has
_WRITTEN = 2.0  # s around the end of a stage in which DVC has written dvc.lock
_MOMENT = 0.2  # s until what may have been half written is read again
_LATE = 1.0  # s since the end of a stage after which other things can have happened
_SHORT = 1.0  # s: a script that calls MLflow runs for longer
_AGAIN = 2.0  # s until something that has failed is tried again, and each time twice as long


@dataclass(eq=False)
class _Stage:
    """A run of a stage, and what this process does with it."""

    run: StageRun
    name: str = ""
    """As the tool calls it."""
    row: LiveRow | None = None
    """The row that it runs for alone; None if there is no one, or none yet."""
    result: Result | None = None
    """What was known of the row, or of the first of several, at its start."""
    inputs: Mapping[str, running.Seen] = field(default_factory=dict)
    """What it read then."""
    entry: object = None
    """What dvc.lock had of it at its start."""
    is_alone: bool = True
    """Whether no other stage has run at the same time below one `dvc-mlflow run`."""
    is_late: bool = False
    """Whether it had ended before its row could begin: somebody can have changed dvc.lock since."""
    is_begun: bool = False
    lock: int = -1
    """A descriptor of dvc.lock as it was then: no other file can have its number meanwhile."""
    pause: float = _AGAIN
    next_try: float = 0.0

    def open_lock(self) -> None:
        """Keep dvc.lock open, if there is one."""
        if self.lock < 0:
            with suppress(OSError):
                self.lock = os.open(self.run.lock, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)

    def is_replaced(self) -> bool:
        """Whether dvc.lock is another file now, as after `git switch`; DVC writes in place."""
        if self.lock < 0:
            return False
        try:
            return not os.path.samestat(os.fstat(self.lock), Path(self.run.lock).stat())
        except OSError:
            return False

    def close(self) -> None:
        """Close what was kept open."""
        if self.lock >= 0:
            os.close(self.lock)


class LiveRows:
    """The rows of one repository's running stages; `say` gets lines for a user."""

    def __init__(self, root: Path, stores: StoreAccess, say: Callable[[str], object]) -> None:
        self._root, self._stores, self._say = root, stores, say
        self._stages: dict[StageRun, _Stage] = {}
        self._open: list[LiveRow] = []
        self._idle: dict[LiveRow, float] = {}
        """Since when the `dvc` of a row has run nothing."""
        self._projects: dict[str, tuple[Project, running.Sources]] = {}
        self._elsewhere: set[str] = set()
        """Other stores that stages have named."""
        self._recommended: set[str] = set()
        """Stages of which `_recommend_run` has said it."""

    def bring(self, run: StageRun) -> bool:
        """Bring the row of a stage up to what is known; return whether that was all.

        After an error it waits before it tries again. What DVC cannot read is raised the second
        time: it can be half written.
        """
        stage = self._stages.setdefault(run, _Stage(run))
        if time.monotonic() < stage.next_try:
            return False
        try:
            is_over = self._bring(stage)
        except Exception as error:
            is_first = stage.pause == _AGAIN
            stage.next_try = time.monotonic() + (_MOMENT if is_first else stage.pause)
            stage.pause = min(2 * stage.pause, RETRY)
            if is_first and isinstance(error, ProjectError):
                return False
            raise
        if is_over:
            self._stages.pop(run).close()
        return is_over

    def is_pending(self, run: StageRun) -> bool:
        """Whether a run has ended, and its row may still get its result at the next try."""
        stage = self._stages.get(run)
        return bool(run.ended) and (stage is None or stage.pause <= 2 * _AGAIN)

    def is_for(self, home: str, result: Result) -> bool:
        """Whether a row is open, or may be, to which a result in a project goes."""
        return any(row.home == home and row.members & members(result) for row in self._open)

    @property
    def are_open(self) -> bool:
        """Whether there are rows, or may be, of a `dvc` that has not ended."""
        return bool(self._open)

    def drop_unused(self) -> Iterator[str]:
        """Let rows go whose `dvc` is done and has run no recorded stage for them.

        Yield the projects that they are of.
        """
        used = {stage.row for stage in self._stages.values()}
        for row in [*self._open]:
            lives = is_alive(row.dvc)
            is_held = lives and holds_lock(row.home, row.pid)
            if row in used or is_held or is_stopped(row.dvc):
                self._idle[row] = time.monotonic()
            elif not lives or time.monotonic() - self._idle[row] > _UNTIL_LOST:
                row.drop()
                self._open.remove(row)
                del self._idle[row]
                yield row.home

    def close(self) -> None:
        """Leave the rows as they are, for the next follower."""
        for row in self._open:
            row.leave()
        for stage in self._stages.values():
            stage.close()
        for project, _ in self._projects.values():
            project.close()

    def _bring(self, stage: _Stage) -> bool:
        run = stage.run
        if not stage.is_begun:
            stage.is_late = bool(run.ended) and time.time() - run.ended > _LATE
            is_short = run.has_next and run.ended - run.began < _SHORT
            if (run.ended and is_short) or (stage.is_late and not _is_its_lock(run)):
                return True  # its result, if there is one, is recorded as something new
            self._begin(stage)
            stage.is_begun = True
        if stage.result is None:
            return bool(run.ended)
        self._take_scripts(stage)
        if stage.row:
            stage.row.follow(run)
        return bool(run.ended) and self._end(stage)

    def _take_scripts(self, stage: _Stage, *, now: bool = False) -> None:
        run, row = stage.run, stage.row
        if row is None:
            return
        alike = [s for s in self._stages.values() if run.token and s.run.token == run.token]
        stage.is_alone &= sum(not s.run.ended for s in alike) < 2
        row.take_scripts(run, stage.name, is_alone=stage.is_alone, now=now)

    def _begin(self, stage: _Stage) -> None:
        """Begin the row of a stage, or let it go on with one, if it runs for one row alone.

        If it runs for several, only its inputs are looked at.
        """
        run = stage.run
        if not Path(run.home).is_dir():
            return
        project = self._project(run.home)
        name = stage.name = begin_at(project, run.file, run.name)
        results = results_of(project, run, name)
        if not results:
            return
        stage.open_lock()
        stage.entry = running.entry_of(project, name)
        stage.inputs = running.inputs_seen(project, name, int(run.began * 1e9))
        result = stage.result = results[0]
        if len(results) > 1:
            return
        row = next((row for row in self._open if row.is_of(run, result)), None)
        if row is None:
            row = LiveRow(self._stores, run, result)
            self._open.append(row)
            self._idle[row] = time.monotonic()
        stage.row = row
        if row.begin(run, result, name):
            self._say(f"{name} is RUNNING: {row.line}")
        here = os.environ.get("MLFLOW_TRACKING_URI", "")
        if run.store not in ("", here, address(self._root), *self._elsewhere):
            self._elsewhere.add(run.store)
            self._say(f"{name} names another store, {masked(run.store)}; its row is here")

    def _end(self, stage: _Stage) -> bool:
        """Complete the row of a stage whose entry is gone, or end it; return whether it is over."""
        run = stage.run
        if run.home != run.main and not run.has_next:
            return self._end_copy(stage)
        now, since = stamp(run.lock), time.time() - run.ended
        if now and now != run.before and not _is_later(run, now.time):
            # DVC writes in place, and half of a dvc.lock can be valid.
            is_whole = now.age > _HALF_WRITTEN
            state = self._result(stage, lasts=since < _UNTIL_LOST) if is_whole else None
            if not is_whole or stamp(run.lock) != now:
                return False
            if state is not None:
                self._complete(stage, state)
                return True
        is_proof = run.is_dvc_done and since > _UNTIL_FAILED and (not now or now.age > _RESTS)
        if run.is_dvc_alive and not is_proof:
            return False
        self._fail(stage)
        return True

    def _end_copy(self, stage: _Stage) -> bool:
        """Complete the row of the last stage in a temporary copy, from its experiment.

        DVC removes the copy once it has fetched the experiment. That is a moment after the last
        result is written there, but on a loaded machine the queue's worker takes its time.
        """
        run = stage.run
        if run.is_dvc_alive and Path(run.home).is_dir():
            return False
        experiments = named_experiments(self._root) if run.experiment else {}
        for commit in [commit for commit, name in experiments.items() if name == run.experiment]:
            with Project(at=Path(run.main)) as project, project.at(commit):
                state = read_state(project, commit)
                if stage.name in state.digests:
                    origin = of_experiment(project.top, state.origin, run.experiment)
                    self._complete(stage, replace(state, origin=origin))
                    return True
        since, now = time.time() - run.ended, stamp(run.lock)
        if now and now != run.before:  # DVC's worker has yet to fetch it, and to remove the copy
            if since > _UNTIL_FETCHED and stage.row:
                stage.row.drop()
            return since > _UNTIL_FETCHED
        if since < _UNTIL_LOST:
            return False
        self._fail(stage)
        return True

    def _result(self, stage: _Stage, *, lasts: bool) -> State | None:
        """Return what DVC knows, if dvc.lock has a new result of a stage.

        While an error `lasts`, it is raised: later, what cannot be read has no result.
        """
        try:
            project = self._project(stage.run.home)
            if running.entry_of(project, stage.name) == stage.entry and not running.is_as_locked(
                project, stage.name
            ):
                return None
            state = read_state(project)
        except ProjectError:
            if lasts:
                raise
            return None
        return replace(state, origin=state.origin._replace(experiment=stage.run.experiment))

    def _complete(self, stage: _Stage, state: State) -> None:
        """Complete the row of a stage that has ended, if it is recorded and its inputs are right.

        With one before the recorded stages, the row only goes on.
        """
        self._take_scripts(stage, now=True)
        name, result, digest = stage.name, stage.result, state.locked.get(stage.name, "")
        if result is None:
            return
        row = stage.row or LiveRow(self._stores, stage.run, result)
        if changed := running.inputs_changed(state.project, name, stage.inputs):
            if stage.is_replaced():
                row.drop()
                return
            why = f"{', '.join(changed[:3])} changed while the stage ran"
            row.end("FAILED", why, result, name, changed_tags(digest, changed))
            again = f"`dvc-mlflow run dvc repro -f {name}` makes its result again"
            self._say(f"{name} is FAILED: {row.name}; {why}; {again}")
            return
        self._recommend_run(stage, row, result)
        if stage.row is None or name not in row.members:
            row.withdraw(digest)
            return
        current = state
        if not state.project.commit:
            current = without_outdated(state.project, state, name, row.members)
        found = [result for result in current.results() if name in members(result)]
        if name not in current.digests or not found:
            row.drop()
            why = state.reasons.get(name, "dvc.lock has no result of it")
            self._say(f"{name} is not recorded: {why}")
            return
        if why := row.why_not(found[0], digest):
            row.drop()
            self._say(why)
            return
        written = row.complete(found[0])
        self._say(f"{name} is FINISHED: row {written.name!r}")
        for note in written.notes:
            self._say(note)

    def _fail(self, stage: _Stage) -> None:
        """End the row of a stage that has no result; no accusation without proof."""
        run, row = stage.run, stage.row
        status = "KILLED" if run.was_killed and not run.is_dvc_alive else "FAILED"
        self._take_scripts(stage, now=True)
        is_unknown = run.repeated_by or stage.is_late or stage.is_replaced()
        if row and is_unknown:
            row.drop()
        elif row and stage.result:
            row.end(status, f"DVC has no result of stage {stage.name}", stage.result, stage.name)
            self._say(f"{stage.name} is {status}: {row.name}; dvc.lock has no result of it")

    def _recommend_run(self, stage: _Stage, row: LiveRow, result: Result) -> None:
        """Say, once for each stage, that `run` brings what a script logs to the row."""
        run = stage.run
        if run.ended - run.began < _SHORT or stage.name in self._recommended:
            return
        if run.token or result.pipeline.stages[stage.name].is_prefixed:
            return
        if row.has_others(run):
            self._recommended.add(stage.name)
            what = "its script has opened runs in MLflow itself"
            self._say(f"{stage.name}: {what}; under `dvc-mlflow run dvc repro` they are in its row")

    def _project(self, home: str) -> Project:
        """Return a project as it is now."""
        if home in self._projects:
            project, sources = self._projects[home]
            if running.read_again(project, sources):
                return project
            del self._projects[home]
            project.close()
        for gone in [each for each in self._projects if not Path(each).is_dir()]:
            self._projects.pop(gone)[0].close()
        project = Project(at=Path(home))
        self._projects[home] = project, running.sources_of(project)
        return project


def _is_its_lock(run: StageRun) -> bool:
    """Whether dvc.lock is as a stage that has ended has left it, by its time."""
    now = stamp(run.lock)
    return now is not None and abs(now.time / 1e9 - run.ended) < _WRITTEN


def _is_later(run: StageRun, written: int) -> bool:
    """Whether dvc.lock was `written` (in ns) by a later run of the same stage."""
    return run.repeated_by is not None and written > run.repeated_by.began * 1e9
