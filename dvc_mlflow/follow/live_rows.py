"""The rows of what runs: begun and followed as DVC says that stages run, and ended as it says."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from .. import processes
from ..errors import masked
from ..pipeline.row_stages import divided
from ..pipeline.run_context import token_of
from ..pipeline.stages import Stage
from ..place import address
from ..project.definitions import read_pipeline
from ..project.project import Project
from ..project.workspace import begin_at, entry_of, inputs_written, is_as_locked
from ..record.recording import Recording
from ..rows.commits import committed, exactly
from ..rows.origin import of_running
from ..rows.result import Result, state_of
from .live_row import LiveRow, members
from .new_results import NewResults
from .project_homes import stamp
from .stage_runs import Looker, StageRun

_SHORT = 0.3  # s: a stage that has run for less has no row yet
_UNTIL_FAILED = 1.0  # s after which a stage without a result has failed
_UNTIL_WRITTEN = 5.0  # s in which a `dvc` that lives writes dvc.lock
_UNTIL_LEFT = 10.0  # s for which a `dvc` that lives on has run nothing: more than between stages
_UNTIL_FETCHED = 60.0  # s in which DVC fetches a result that only a temporary copy has
_FOR_SCRIPTS = 10.0  # s in which a script under `run` opens the row's run
_OFTEN = 1.0  # s between two looks for the runs of a script


@dataclass(eq=False)
class _Begun:
    """A stage that runs for one row alone."""

    row: LiveRow
    stage: Stage
    is_under_run: bool
    """Whether its script's runs are the row's."""
    entry: object
    """What dvc.lock had of it at its start."""
    looked: float = 0.0
    """When runs of scripts were looked for."""


class LiveRows:
    """The rows of one repository's running stages; `say` gets lines for a user."""

    def __init__(
        self, root: Path, looker: Looker, new: NewResults, say: Callable[[str], object]
    ) -> None:
        self._root, self._looker, self._new, self._say = root, looker, new, say
        self._begun: dict[StageRun, _Begun | None] = {}
        """What was seen to run; None if it is for no row alone."""
        self._open: dict[LiveRow, float] = {}
        """The rows of what runs or goes on, and when their `dvc` was at work last."""

    @property
    def run_ids(self) -> set[str]:
        """The ids of the open rows' runs; "" is a row that has none yet."""
        return {row.run_id for row in self._open}

    def is_new(self, home: str, result: Result) -> bool:
        """Whether no row is open to which a result in a project goes: it gets that by itself."""
        rows = {begun.row for begun in self._begun.values() if begun}
        rows |= {row for row in self._open if not row.done}
        return not any(row.home == home and row.members & members(result) for row in rows)

    def bring(self, run: StageRun) -> bool:
        """Bring the row of a stage up to what is known; return whether that was all."""
        if run not in self._begun:
            if run.ended and run.has_written:
                return True  # its result is recorded as something new
            since, until = (run.ended, _UNTIL_FAILED) if run.ended else (run.began, _SHORT)
            if time.time() - since < until:
                return False
            self._begun[run] = self._begin(run)
        if (begun := self._begun[run]) is None:
            is_over = bool(run.ended)
        else:
            if run.ended or _is_late(begun.looked, _OFTEN):
                begun.looked = time.monotonic()
                self._take_scripts(run, begun)
                begun.row.send_curves(run)
            is_over = bool(run.ended) and self._end(run, begun)
        if is_over:
            del self._begun[run]
        return is_over

    def close_unused(self) -> None:
        """Let rows go whose `dvc` has ended, or lives on and runs nothing."""
        used = {begun.row for begun in self._begun.values() if begun}
        for row in [*self._open]:
            is_done, is_alive = row.members <= row.done, processes.is_alive(row.dvc)
            is_held = row.dvc in self._looker.holding
            if row in used or (is_held and not is_done):
                self._open[row] = time.monotonic()
            elif is_done or not is_alive or _is_late(self._open[row], _UNTIL_LEFT):
                if not is_done and row.run_id and Path(row.home).is_dir():
                    recording = self._new.record_checkout(row.home, _is_of(row), {row.run_id: ()})
                    self._note(row, recording)
                if row.drop():
                    self._say(f"row {row.name!r} is in the trash: its stages have no result")
                elif row.unsaid:
                    self._say(row.unsaid)
                del self._open[row]

    def _begin(self, run: StageRun) -> _Begun | None:
        """Begin the row of a stage, or let it go on with one, if it runs for one row alone."""
        if not Path(run.home).is_dir():
            return None
        with Project(at=Path(run.home)) as project:
            name = begin_at(project, run.file, run.name)
            results = _results_of(project, run, name)
            if len(results) != 1:
                return None
            result, stage = results[0], results[0].pipeline.stages[name]
            row = next((row for row in self._open if row.is_of(run, result, name)), None)
            if row is None:
                row = LiveRow(run, result, self._new.stores_of(project.folder))
            row.begin(run, result, stage)
            entry = entry_of(project, name)
        self._open[row] = time.monotonic()
        named = run.env.get("MLFLOW_TRACKING_URI", "")
        if named not in ("", os.environ.get("MLFLOW_TRACKING_URI"), address(self._root)):
            self._new.say_once([f"{name} names another store, {masked(named)}; its row is here"])
        return _Begun(row, stage, bool(token_of(run.env)) or stage.is_prefixed, entry)

    def _take_scripts(self, run: StageRun, begun: _Begun) -> None:
        """Let the runs of a stage's script be in its row, and say once that it is RUNNING."""
        row, name = begun.row, begun.stage.name
        if begun.is_under_run:
            for experiment in row.take_scripts(run):
                why = f"its script has chosen experiment {experiment!r}, and its runs stay there"
                cure = f"`meta: {{mlflow: {{experiment: {experiment}}}}}` puts the row there"
                self._new.say_once([f"{name}: {why}; in dvc.yaml, {cure}"])
        is_waiting = begun.is_under_run and time.time() - run.began < _FOR_SCRIPTS
        if row.said != row.run_id and not run.ended and (row.is_used or not is_waiting):
            self._say(f"{name} is RUNNING: {row.line}")
            row.said = row.run_id

    def _end(self, run: StageRun, begun: _Begun) -> bool:
        """Give the row of a stage whose entry is gone its result, or end it; say if that is over.

        DVC writes dvc.lock at once, also if it stays the same.
        """
        if run.home != run.main:
            return self._end_copy(run, begun)
        name, now = begun.stage.name, stamp(run.lock)
        goes_on = not processes.is_alive(run.dvc) or run.dvc in self._looker.holding
        is_young = time.time() - run.ended < (_UNTIL_FAILED if goes_on else _UNTIL_WRITTEN)
        if now is None or not run.has_written:
            return not is_young and self._fail(run, begun)
        if not now.is_whole:
            return False
        later = (each.began for each in self._looker.runs if each.is_again(run))
        if any(began < now.time / 1e9 for began in later):  # before anybody has looked
            self._open.pop(begun.row, None)
            if begun.row.drop():
                self._say(f"row {begun.row.name!r} is in the trash: its stage has run again")
            return True
        with Project(at=Path(run.home)) as project:
            is_old = entry_of(project, name) == begun.entry
            if is_old and not is_as_locked(project, name):  # another stage has been written
                return not is_young and self._fail(run, begun)
            changed = inputs_written(project, name, int(run.began * 1e9), now.time)
        if name in begun.row.members:
            ended = {begun.row.run_id: changed}
            self._finish(run, begun, self._new.record_checkout(run.home, _is_of(begun.row), ended))
        return True

    def _end_copy(self, run: StageRun, begun: _Begun) -> bool:
        """Give the row of a temporary copy its result once DVC has fetched its experiment.

        DVC removes the copy then. On a loaded machine, the queue's worker takes its time.
        """
        others = [each for other, each in self._begun.items() if other is not run and each]
        if any(each.row is begun.row for each in others):
            return True
        if processes.is_alive(run.dvc) and Path(run.home).is_dir():
            return False
        if found := committed(self._root).having({run.experiment}):
            with self._new.recording(run.main, {begun.row.run_id: ()}) as recording:
                recording.record_commits(exactly(recording.project.top, found))
            self._finish(run, begun, recording)
            return True
        late = _UNTIL_FETCHED if run.has_written else _UNTIL_WRITTEN
        return time.time() - run.ended > late and self._fail(run, begun)

    def _finish(self, run: StageRun, begun: _Begun, recording: Recording) -> None:
        """Say what became of a row whose stage has a result."""
        row, name = begun.row, begun.stage.name
        row.end_scripts("FINISHED")
        if not begun.is_under_run and run.ended - run.began > _OFTEN and row.is_elsewhere(run):
            what = f"{name}: its script has opened runs in MLflow itself"
            self._new.say_once([f"{what}; under `dvc-mlflow run dvc repro` they are in its row"])
        self._note(row, recording)
        if why := recording.reasons.get(name):
            self._fail(run, begun, f"stage {name} is not recorded: {why}")

    def _note(self, row: LiveRow, recording: Recording) -> None:
        """Take note of the run that has the results of a row: it can be an older one."""
        for result in recording.results:
            if row.members & members(result):
                for _, has in recording.rows_of([result]):
                    if row.run_id not in ("", has.run_id):
                        row.drop(has.run_id)
                        if not row.is_used:
                            what = f"{has.name!r} has its result"
                            self._say(f"row {row.name!r} is in the trash: {what}")
                    row.run_id, row.name = has.run_id, has.name
                    done = {result.row_stages.members[name].name for name in result.digests}
                    if done != row.done:
                        row.done, row.unsaid = done, f"{result.head.name} is FINISHED: {row.line}"

    def _fail(self, run: StageRun, begun: _Begun, why: str = "") -> bool:
        """End the row of a stage that has no result; what it has of others is recorded anew."""
        row, status = begun.row, "KILLED" if run.was_killed else "FAILED"
        why = why or f"stage {begun.stage.name} ended without a result"
        is_ended = row.end(run, status, why)
        row.end_scripts(status)
        self._open.pop(row, None)
        self._new.look_again(run.home)
        if is_ended:
            self._say(f"{why}{', as its `dvc` was killed' if run.was_killed else ''}: {row.line}")
        return True


def _is_of(row: LiveRow) -> Callable[[Result], bool]:
    """Return whether a result goes to a row."""
    return lambda result: bool(row.members & members(result))


def _is_late(since: float, seconds: float) -> bool:
    return time.monotonic() - since > seconds


def _results_of(project: Project, run: StageRun, name: str) -> list[Result]:
    """Return what DVC knows of the rows that a running stage is for.

    They are those in which it is recorded; if there are none, those that read its outputs.
    """
    pipeline = read_pipeline(project)
    state = state_of(project, pipeline, of_running(project, run.experiment, int(run.began * 1e9)))
    rows = divided(pipeline, state.stages)
    own = (each for each in rows if name in {stage.name for stage in each.scope()})
    results = [state.result(each) for each in own]
    return [each for each in results if name in members(each)] or results
