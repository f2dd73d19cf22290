"""A row while one `dvc` runs stages for it: open it, follow its curves, complete or end it."""

import os
import time
from collections.abc import Mapping, Set
from dataclasses import replace
from types import MappingProxyType

from mlflow.entities import Metric, Run

from .. import processes
from ..pipeline.row_stages import RowStages, divided, live_key
from ..pipeline.tags import LIVE, NOTE, PARENT, PROCESS, TOKEN
from ..place import environment
from ..project import Project, read_pipeline
from ..project.files import md5_of_text
from ..project.workspace import holds
from ..record.changed_inputs import ChangedInputs
from ..record.recording import bring
from ..rows.content import params_of
from ..rows.description import description, ended
from ..rows.origin import of_running
from ..rows.result import Result, State, state_of
from ..rows.row_of import row_of
from ..store.run_data import comparable, log, stored
from ..store.runs import find_run
from ..store.store import Store
from ..store.upsert import Live, Written
from .curves import GrowingCurves
from .live_run import Monitor, log_known, monitor, open_run, take_run
from .script_runs import are_elsewhere, may_open, opened_by
from .stage_runs import StageRun
from .store_access import StoreAccess

_OFTEN = 1.0  # s between two looks for the runs of a script


class LiveRow:
    """The row of stages that one `dvc` runs; methods raise `StoreError` and `ProjectError`."""

    def __init__(self, stores: StoreAccess, run: StageRun, result: Result) -> None:
        self.pid, self.dvc, self.home = run.pid, run.dvc, run.home
        self.members = members(result)
        self._stores, self._result = stores, result
        self._live, self._name, self._digits = Live(), "", os.urandom(4).hex()
        self._sent: Set[tuple[str, str, int]] = frozenset()
        """The points that it had when it was found."""
        self._monitor: Monitor | None = None
        self._curves: dict[StageRun, GrowingCurves] = {}
        self._children: list[str] = []
        """Further runs of scripts."""
        self._looked = 0.0
        """When runs of scripts were looked for."""

    @property
    def is_open(self) -> bool:
        """Whether it has a run that is not completed."""
        return bool(self._live.run_id)

    @property
    def name(self) -> str:
        """What a user calls it."""
        return f"row {self._name!r}"

    @property
    def line(self) -> str:
        """The same, with its address if there is one."""
        with self._stores.use(self._result) as store:
            return store.row_line(self._name, self._live.run_id)

    def is_of(self, run: StageRun, result: Result) -> bool:
        """Whether a stage that has begun goes on with it."""
        own = self.pid, self.dvc, self.home, self.members
        return own == (run.pid, run.dvc, run.home, members(result))

    def begin(self, run: StageRun, result: Result, name: str) -> bool:
        """Open a run for a stage that has begun, or let the stage go on with one.

        Return whether it is new. One that only adds to a row which has results already has none
        of its own until it ends, unless it draws curves.
        """
        stage, is_new = result.pipeline.stages[name], not self.is_open
        curves = self._curves[run] = GrowingCurves(result, stage)
        self._result = result
        if is_new and self.members & result.pipeline.above(name) and not curves.draws:
            return False
        with self._stores.use(result) as store:
            if self.is_open or self._find(store):
                log_known(store, store.client.get_run(self._live.run_id), result, stage)
            else:
                self._open(store, result, name)
        if is_new and self.is_open:
            self._monitor = monitor(self._live.run_id)
        return is_new and self.is_open

    def take_scripts(self, run: StageRun, name: str, *, is_alone: bool, now: bool = False) -> None:
        """Let what a stage's script has opened in MLflow be the row, and further runs its children.

        They are looked for once a second, or `now`. A script that has chosen another experiment has
        its runs there: the row is where dvc.yaml has it.
        """
        if not may_open(run) or (time.monotonic() - self._looked < _OFTEN and not now):
            return
        self._looked = time.monotonic()
        with self._stores.use(self._result) as store:
            for script in opened_by(store, run, is_alone=is_alone):
                if script.info.run_id in self._children:
                    continue
                if script.info.experiment_id != store.experiment_id or self._live.is_used:
                    self._children.append(script.info.run_id)
                    if self.is_open:
                        store.client.set_tag(script.info.run_id, PARENT, self._live.run_id)
                else:
                    self._take(store, run, script, name)

    def _take(self, store: Store, run: StageRun, script: Run, name: str) -> None:
        """Let a script's run be the row, in place of the one that was opened before."""
        result, own = self._result, self._live.run_id
        stage, tags = result.pipeline.stages[name], self._all_tags(store, result)
        self._live = take_run(store, script, result, stage, self._digits, tags)
        self._stop_monitor()
        if own:
            _delete(store, own)
        self._name, self._sent = self._live.name, stored(store, script)
        self._curves[run] = GrowingCurves(result, stage)
        self._give_parent(store, self._live.run_id)

    def _give_parent(self, store: Store, run_id: str) -> None:
        for child in self._children:
            store.client.set_tag(child, PARENT, run_id)

    def follow(self, run: StageRun) -> None:
        """Send what a stage has added to its curves."""
        points = self._curves[run].read() if self.is_open and run in self._curves else []
        if new := [point for point in points if comparable(point) not in self._sent]:
            now = int(time.time() * 1000)
            with self._stores.use(self._result) as store:
                log(store, self._live.run_id, [Metric(p.key, p.value, now, p.step) for p in new])

    def complete(self, result: Result) -> Written:
        """Complete the row with the result of one of its members."""
        self._stop_monitor()
        with self._stores.use(result) as store:
            if self.is_open and not self._live.is_used and self._is_of_another(store, result):
                _delete(store, self._live.run_id)
                self._live = Live()
            self._live = self._live._replace(tags=made_by(result.project))
            has = find_run(store, result.digests)
            row = row_of(result, has.has or has.joins, store.root)
            written = bring(store, row, self._live)
            self._give_parent(store, written.run_id)
            if written.verb:
                store.show(written.measures)
        self._forget()
        return written

    def end(
        self,
        status: str,
        why: str,
        result: Result,
        name: str,
        tags: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """Mark it as FAILED or KILLED, as a stage has no result."""
        self._stop_monitor()
        with self._stores.use(self._result) as store:
            if not self.is_open:
                self._open(store, result, name)
            run = store.client.get_run(self._live.run_id)
            log_known(store, run, result, result.pipeline.stages[name])
            text = run.data.tags.get(NOTE) or description(run.data.tags, self._result.row_stages)
            more = {NOTE: f"{ended(status, why)}\n\n{text}", LIVE: "", **tags}
            log(store, run.info.run_id, tags=more)
            store.client.set_terminated(run.info.run_id, status)
            self._give_parent(store, run.info.run_id)
        self._forget()

    def drop(self) -> None:
        """Move its run to the trash: `dvc` ran no recorded stage, or its end cannot be known."""
        self._stop_monitor()
        if self.is_open:
            with self._stores.use(self._result) as store:
                if self._live.is_used:  # it stays the script's own
                    log(store, self._live.run_id, tags={LIVE: ""})
                else:
                    _delete(store, self._live.run_id)
            self._forget()

    def why_not(self, result: Result, again: str) -> str:
        """Return why a result counts for nothing, if not for the one made `again` just now."""
        with self._stores.use(result) as store:
            joins = find_run(store, result.digests).joins
            known = joins.digests.values() if joins else ()
            return ChangedInputs(store).why_not(result.state, result.scope(), [again, *known])

    def withdraw(self, digest: str) -> None:
        """Take note that a stage has made a result with inputs that have not changed."""
        with self._stores.use(self._result) as store:
            ChangedInputs(store).withdraw(digest)

    def has_others(self, run: StageRun) -> bool:
        """Whether a script has opened runs which are in no row, as far as can be seen."""
        with self._stores.use(self._result) as store:
            return are_elsewhere(store, run)

    def leave(self) -> None:
        """Stop what runs for it here: the next follower finds it."""
        self._stop_monitor()

    def _is_of_another(self, store: Store, result: Result) -> bool:
        """Whether its params are not those of the result: a stage can have run again unseen."""
        now = params_of(result)[0]
        begun = store.client.get_run(self._live.run_id).data.params
        return any(now.get(key, text) != text for key, text in begun.items())

    def _open(self, store: Store, result: Result, name: str) -> None:
        stage, tags = result.pipeline.stages[name], self._all_tags(store, result)
        self._live = open_run(store, result, stage, self._digits, tags)
        self._name = self._live.name

    def _all_tags(self, store: Store, result: Result) -> dict[str, str]:
        return {**made_by(result.project), **self._tags(store)}

    def _forget(self) -> None:
        """Let what comes have a run of its own."""
        self._live, self._children, self._digits = Live(), [], os.urandom(4).hex()

    def _tags(self, store: Store) -> dict[str, str]:
        """Return the tags by which the row is found: what it is for, and the `dvc` that runs it."""
        own = {LIVE: live_key(self._result.pipeline.folder, self._result.row_stages)}
        is_here = processes.process(self.pid)
        return own | processes.process_tags(store.root, self.pid if is_here else 0)

    def _find(self, store: Store) -> bool:
        """Find the run that a follower before this one has opened for the same `dvc`."""
        tags = self._tags(store)
        query = " and ".join(f"tags.`{key}` = '{tags[key]}'" for key in (LIVE, PROCESS))
        for run in store.runs(query):
            if tags.items() <= run.data.tags.items():
                self._name, is_used = run.info.run_name or "", bool(run.data.tags.get(TOKEN, ""))
                self._live = Live(run.info.run_id, is_used=is_used)
                self._sent = stored(store, run)
                return True
        return False

    def _stop_monitor(self) -> None:
        if self._monitor:
            self._monitor.finish()
            self._monitor = None


def _delete(store: Store, run_id: str) -> None:
    """Move a run to the trash, which would show it as RUNNING."""
    store.client.set_terminated(run_id, "KILLED")
    store.client.delete_run(run_id)


def results_of(project: Project, run: StageRun, name: str) -> list[Result]:
    """Return what DVC knows of the rows that a running stage is for.

    They are those in which it is recorded; if there are none, those that read its outputs.
    """
    pipeline = read_pipeline(project)
    began = int(run.began * 1e9)
    found = state_of(project, pipeline, of_running(project, run.experiment, began))
    own = (each for each in divided(pipeline, found.stages) if _runs_for(each, name))
    results = [found.result(each) for each in own]
    return [each for each in results if name in members(each)] or results


def members(result: Result) -> frozenset[str]:
    """Return the names of the stages that are recorded in the row of a result."""
    return frozenset(stage.name for stage in result.row_stages.members.values())


def without_outdated(project: Project, state: State, name: str, others: Set[str]) -> State:
    """Return a state without outdated results of stages that DVC may run after the one just run."""
    known, pipeline = state.digests, state.pipeline
    own = pipeline.stages[name]
    gone = {
        other
        for other in others & known.keys()
        if other != name
        and not pipeline.is_upstream(pipeline.stages[other], of=own)
        and not holds(project, other)
    }
    return replace(state, digests={k: v for k, v in known.items() if k not in gone})


def made_by(project: Project) -> dict[str, str]:
    """Return the tags of what runs the code of a project here."""
    found = environment(md5_of_text(project, "requirements.txt"))
    return {key: value for key, value in found.items() if value}


def _runs_for(row_stages: RowStages, name: str) -> bool:
    return any(stage.name == name for stage in row_stages.scope())
