"""The run in MLflow of stages that one `dvc` runs for one row: what is known while they run.

Its result is recorded by whoever finds it, as any other: `record/begun.py`.
"""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mlflow.entities import Metric, Run
from mlflow.environment_variables import MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING

from .. import processes
from ..pipeline.row import RowKey
from ..pipeline.row_stages import live_key
from ..pipeline.run_context import token_of
from ..pipeline.stages import Stage
from ..pipeline.tags import CLONE, KEPT, LIVE, LOCK, NOTE, PARENT, PROCESS, TOKEN, WHOLE
from ..place import store_folder
from ..record.begun import opened_by_script
from ..rows.content import params_of
from ..rows.description import description, ended
from ..rows.name import words
from ..rows.result import Result, table_of
from ..rows.row_of import origin_tags
from ..store.run_data import comparable, log, stored
from ..store.store import ExperimentStores, Store
from ..store.upsert import leave, new_run, noted
from .curves import GrowingCurves
from .stage_runs import StageRun


class LiveRow:
    """The run of a row while its stages run; methods raise `StoreError` and `ProjectError`."""

    def __init__(self, run: StageRun, result: Result, stores: ExperimentStores) -> None:
        self.dvc, self.home, self.members = run.dvc, run.home, members(result)
        self.run_id, self.name = "", ""
        """Of its run in MLflow, if it has one."""
        self.is_used = False
        """Whether a stage's script has opened that."""
        self.said = ""
        """The run of which a line has said that it is RUNNING."""
        self.done = set[str]()
        """The stages whose results it has."""
        self.unsaid = ""
        """The line that it is FINISHED, while further stages may run for it."""
        self._stores, self._result = stores, result
        self._curves: dict[StageRun, GrowingCurves] = {}
        self._sent = frozenset[tuple[str, str, int]]()
        """The points that it had when it was found."""
        self._monitor: Any = None
        """What logs the machine's use, in a thread of its own."""

    @property
    def line(self) -> str:
        """What a user calls it, with its address if there is one."""
        with self._locked() as store:
            return store.row_line(self.name, self.run_id)

    def is_of(self, run: StageRun, result: Result, name: str) -> bool:
        """Whether a stage of this name that has begun goes on with it.

        It does not if the row has a result of it, or one that is made from its.
        """
        own, above = (self.dvc, self.home, self.members), result.pipeline.above
        is_new = all(name not in {each, *above(each)} for each in self.done)
        return is_new and own == (run.dvc, run.home, members(result))

    def begin(self, run: StageRun, result: Result, stage: Stage) -> None:
        """Open a run for a stage that has begun, or let it go on with the one that is there."""
        self._result, self._curves[run] = result, GrowingCurves(result, stage)
        with self._locked() as store:
            self._open(store, run)

    def send_curves(self, run: StageRun) -> None:
        """Send what a stage has added to its curves."""
        new = self._curves[run].read(self._sent) if self.run_id and run in self._curves else []
        if new:
            now = int(time.time() * 1000)
            with self._locked() as store:
                if self._is_live(store):
                    log(store, self.run_id, [Metric(p.key, p.value, now, p.step) for p in new])
            self._sent |= {comparable(point) for point in new}

    def take_scripts(self, run: StageRun) -> list[str]:
        """Let the first run that a stage's script has opened be the row's, and others its children.

        All keep their names. Return the other experiments in which the script has opened some.
        """
        elsewhere = dict[str, None]()
        with self._locked() as store:
            for script in _scripts(store, run):
                if script.info.experiment_id != store.experiment_id:
                    experiment = store.client.get_experiment(script.info.experiment_id)
                    elsewhere[experiment.name] = None
                elif self.is_used or (self.run_id and WHOLE in self._tags(store)):
                    store.client.set_tag(script.info.run_id, PARENT, self.run_id)
                else:
                    self._take(store, run, script)
        return [*elsewhere]

    def end(self, run: StageRun, status: str, why: str) -> bool:
        """Mark it as FAILED or KILLED, as a stage has no result, unless somebody has completed it.

        The results that it has of earlier stages get a row of their own, like any without one.
        Return whether it was marked.
        """
        self._stop()
        with self._locked() as store:
            if not self.run_id:
                self._open(store, run)
            if not self._is_live(store):
                return False
            tags = self._tags(store)
            for key in (k for k in tags if k.startswith(LOCK) or k in (WHOLE, KEPT)):
                store.client.delete_tag(self.run_id, key)
            text = f"{ended(status, why)}\n\n{tags.get(NOTE, '')}"
            log(store, self.run_id, tags={NOTE: text, LIVE: ""})
            store.client.set_terminated(self.run_id, status)
        return True

    def end_scripts(self, status: str) -> None:
        """End the runs below it that a script has left RUNNING, as its stage has ended."""
        with self._locked() as store:
            below = f"tags.`{PARENT}` = '{self.run_id or '-'}' and attributes.status = 'RUNNING'"
            for script in [*store.runs(below)]:
                store.client.set_terminated(script.info.run_id, status)

    def drop(self, has: str = "") -> bool:
        """Let its run go if nothing has become of it; return whether it is in the trash.

        A script's stays, below the one that `has` its result.
        """
        self._stop()
        with self._locked() as store:
            if not (self.run_id and self._is_live(store)):
                return False
            leave(store, self.run_id, has, is_used=self.is_used)
        return not self.is_used

    def is_elsewhere(self, run: StageRun) -> bool:
        """Whether a script has opened runs by plain MLflow while its stage ran."""
        own_store = store_folder(self._stores.root) / "mlflow.db"
        places = [Path(f, n) for f in (run.folder, run.home) for n in ("mlruns", "mlflow.db")]
        if any(run.is_older(f"{path}") for path in places if path != own_store):
            return True
        times = f"attributes.start_time >= {int(run.began * 1000)}"
        times += f" and attributes.start_time <= {int(run.ended * 1000)}"
        with self._locked() as store:
            return any(not each.data.tags.get(CLONE, "") for each in store.runs(times))

    def _open(self, store: Store, run: StageRun) -> None:
        """Let a run be open, and log what is known of a stage."""
        result, stage = self._result, self._curves[run].stage
        pid = processes.pid_of(self.dvc) if processes.is_alive(self.dvc) else 0
        tags = processes.process_tags(store.root, pid)
        tags[LIVE] = live_key(result.pipeline.folder, result.row_stages)
        if not self.run_id:
            query = " and ".join(f"tags.`{key}` = '{tags[key]}'" for key in (LIVE, PROCESS))
            found = next(store.runs(query), None)  # of a follower that was killed
            self._use(store, found or _opened(store, result, stage, tags))
        row = store.client.get_run(self.run_id)
        if row.info.lifecycle_stage != "active":  # somebody has deleted it
            return
        if row.info.status != "RUNNING":  # it has the result of an earlier stage
            store.client.update_run(self.run_id, "RUNNING")
        params = {} if self.is_used else _params(result, stage)
        new = {key: text for key, text in params.items() if key not in row.data.params}
        log(store, self.run_id, params=new, tags=tags)
        if MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING.get() and not (self._monitor or self.is_used):
            from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

            self._monitor = SystemMetricsMonitor(self.run_id)
            self._monitor.start()

    def _take(self, store: Store, run: StageRun, script: Run) -> None:
        """Let a script's run be the row's, in place of the one that was opened before.

        It gets the params when the stage has ended: the script may log them in its own way, and
        MLflow would refuse another value.
        """
        stage, previous = self._curves[run].stage, self.run_id
        self._stop()
        self._use(store, script)
        if previous:
            leave(store, previous)
        tags = origin_tags(self._result.state, stage)
        if not script.data.tags.get(NOTE):
            tags |= noted(description(tags, self._result.row_stages))
        log(store, self.run_id, tags=tags)
        self._curves[run] = GrowingCurves(self._result, stage)
        self._open(store, run)
        store.show()

    def _use(self, store: Store, run: Run) -> None:
        self.run_id, self.name = run.info.run_id, run.info.run_name or ""
        self.is_used, self._sent = bool(run.data.tags.get(TOKEN)), stored(store, run)

    def _tags(self, store: Store) -> Mapping[str, str]:
        return dict(store.client.get_run(self.run_id).data.tags)

    def _is_live(self, store: Store) -> bool:
        """Whether nobody has completed or deleted its run; a script can have ended it."""
        run = store.client.get_run(self.run_id)
        return bool(run.info.lifecycle_stage == "active" and run.data.tags.get(LIVE))

    def _stop(self) -> None:
        """Stop what logs the machine's use."""
        if self._monitor:
            self._monitor.finish()
            self._monitor = None

    @contextmanager
    def _locked(self) -> Iterator[Store]:
        store = self._stores.of(*table_of(self._result.row_stages))
        with store.lock(), store.errors_reported():
            yield store


def members(result: Result) -> frozenset[str]:
    """Return the names of the stages that are recorded in the row of a result."""
    return frozenset(stage.name for stage in result.row_stages.members.values())


def _opened(store: Store, result: Result, stage: Stage, own: Mapping[str, str]) -> Run:
    """Open a run for a row of which a stage begins; its name gets digits with its result."""
    tags = {**origin_tags(result.state, stage), **own}
    name = words(result, _names(result, stage)) or stage.label
    run = new_run(store, result.origin.time, tags, name, description(tags, result.row_stages))
    store.show()
    return run


def _names(result: Result, stage: Stage) -> list[RowKey]:
    """Return what a stage is called in its row; nothing if it is only upstream of it."""
    members = result.row_stages.members.items()
    return [name for name, member in members if member.name == stage.name]


def _params(result: Result, stage: Stage) -> dict[str, str]:
    if names := _names(result, stage):
        return params_of(result, names)[0]
    return params_of(result, [*result.row_stages.members], only=stage)[0]


def _scripts(store: Store, run: StageRun) -> list[Run]:
    """Return the runs that a stage's script has opened, and that are no row's yet."""
    token = token_of(run.env)
    marks = {run.dvc, token.process if token else ""} - {""}
    until = run.ended or time.time()
    return opened_by_script(store, marks, run.env["DVC_STAGE"], run.began, until)
