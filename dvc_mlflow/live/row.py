"""A stage's row while its command runs: open it, follow its curves, and complete it."""

import os
import time
from contextlib import suppress
from typing import NamedTuple

from ..store.store import Store  # before MLflow, which it sets up

# isort: split
from mlflow.entities import Metric, Run

from .. import processes
from ..errors import StoreError, masked
from ..follow.beginning import log_known, open_run
from ..follow.curves import Follower
from ..follow.known import Known
from ..follow.live_row import made_by, without_outdated
from ..follow.machine import PREFIX, Monitor, monitor
from ..follow.recording import bring
from ..pipeline.lineages import lineages
from ..pipeline.tags import NOTE, PARENT, TOKEN
from ..project import Project
from ..rows.description import description, ended
from ..rows.origin import Origin, of_running
from ..rows.result import Result, experiment, of
from ..rows.row_of import origin_tags
from ..store.random_names import is_random_name
from ..store.sending import comparable, log
from ..store.upsert import Live, leave
from .request import Request


class Ended(NamedTuple):
    """How a stage has ended: lines for the user, and 1 if its inputs changed, else 0."""

    say: list[str]
    code: int
    is_done: bool = False
    """Whether its result is recorded."""


class LiveRow:
    """The row of a running stage; its methods raise `StoreError` and `ProjectError`."""

    def __init__(self, known: Known, project: Project, request: Request) -> None:
        self._live = Live()
        self._monitor: Monitor | None = None
        self._elsewhere: list[str] = []
        self._known, self._request = known, request
        self._project = project
        self._name = self._project.begin(request.stage, request.folder)
        self._inputs = self._project.inputs(request.began, request.params)
        self._origin: Origin | None = None
        self.key = request.home, request.stage
        self.commands: list[str] = []
        """The stage's further commands, after the one that runs."""
        if request.text is not None:
            first, *others = self._project.commands()
            self.commands = others if first == request.text else []
        self._tokens = [request.token]
        self._results = self._read()
        self._sent: set[tuple[str, str, int]] = set()
        result = self._results[0]
        self._curves = Follower(result, result.pipeline.stages[self._name])

    @property
    def run_id(self) -> str:
        """The run of the row, or "" while it has none."""
        return self._live.run_id

    def goes_on(self, request: Request) -> bool:
        """Whether a request begins the stage's next command; if so, this is its row."""
        if self.commands[:1] != [request.text]:
            return False
        del self.commands[0]
        self._tokens.append(request.token)
        return True

    def open(self) -> None:
        """Open a run if this stage begins a row or draws curves; others join one at the end."""
        if self.run_id:
            return
        lineage = self._results[0].lineage
        above = lineage.scope(self._names())[:-1]
        if self._curves.draws or not any(stage in lineage.members.values() for stage in above):
            self._open()
            stage = self._results[0].pipeline.stages[self._name]
            if stage.settings.open != "first":  # MLflow starts one in the script
                self._monitor = monitor(self.run_id)

    def follow(self) -> None:
        """Send what the command has added to its curves."""
        if self.run_id and (points := self._curves.read()):
            now = int(time.time() * 1000)
            with self._known.use(self._results[0]) as (store, _):
                log(store, self.run_id, [Metric(p.key, p.value, now, p.step) for p in points])
            self._sent |= {comparable(point) for point in points}

    def finish(self, code: int, stopped: int, said: str) -> Ended:
        """Complete the row of a command that has ended, or mark it as FAILED or KILLED."""
        self._stop_monitor()
        if code or stopped:
            status = "KILLED" if stopped or code < 0 else "FAILED"
            lines = [line.strip() for line in said.splitlines() if line.strip()]
            why = f"exit status {code if code >= 0 else 128 - code}: {lines[-1] if lines else ''}"
            self._end(status, why, said)
            return Ended([], 0)
        if changed := self._changed():
            what = f"{', '.join(changed[:3])} changed while the stage ran"
            with suppress(StoreError):  # the stage must fail even if MLflow cannot be reached
                self._end("FAILED", what)
            return Ended([f"{what}; run `dvc repro` again"], 1)
        if self._project.lacks_outputs():
            self._end("FAILED", "an output is missing")
            return Ended([], 0)
        return Ended(self._complete(), 0, is_done=True)

    def drop(self) -> None:
        """Mark the row as KILLED, as the stage's `run` is gone."""
        self._stop_monitor()
        self._end("KILLED", "the stage was killed")

    def _read(self) -> list[Result]:
        """Return what DVC knows now of the lineages that have this stage as a member."""
        pipeline = self._project.pipeline()
        self._origin = self._origin or of_running(
            self._project, pipeline, os.environ.get("DVC_EXP_NAME", ""), self._request.began
        )
        found = of(self._project, pipeline, self._origin)
        stage = pipeline.stages[self._name]
        chosen = found.stages if stage in found.stages else [*found.stages, stage]
        return [found.result(each) for each in lineages(pipeline, chosen, stage)]

    def _names(self) -> list[str]:
        """Return what this stage is called in its row."""
        members = self._results[0].lineage.members
        return [name for name, stage in members.items() if stage.name == self._name]

    def _open(self) -> None:
        result = self._results[0]
        with self._known.use(result) as (store, _):
            stage, token = result.pipeline.stages[self._name], self._request.token
            self._live = open_run(store, result, stage, token, made_by(self._project))

    def _stop_monitor(self) -> None:
        if self._monitor:
            self._monitor.finish()
            self._monitor = None

    def _changed(self) -> list[str]:
        now = self._project.inputs()
        return [path for path, value in self._inputs.items() if value is None or now[path] != value]

    def _end(self, status: str, why: str, said: str = "") -> None:
        """End the run of a stage that has no result; open it first if there is none yet."""
        self.follow()
        with self._known.use(self._results[0]) as (store, _):
            self._adopt(store)
        if not self.run_id:
            self._open()
        with self._known.use(self._results[0]) as (store, _):
            run = store.client.get_run(self.run_id)
            result = self._results[0]
            log_known(store, run, result, result.pipeline.stages[self._name])
            text = run.data.tags.get(NOTE) or description(run.data.tags, self._results[0].lineage)
            if said:
                store.client.log_text(self.run_id, masked(said), "stderr.txt")
            store.client.set_tag(self.run_id, NOTE, f"{ended(status, why)}\n\n{text}")
            store.client.set_terminated(self.run_id, status)

    def _complete(self) -> list[str]:
        self._project.finish()
        self._results = self._read()
        state = self._results[0].state
        with self._known.use(self._results[0]) as (store, _):
            live = self._adopt(store)._replace(tags=made_by(self._project))
            if reason := state.reasons.get(self._name):
                leave(store, live, {})
                return [f"stage {self._name} is not recorded: {reason}"]
        names = {s.name for each in self._results for s in each.lineage.members.values()}
        current = without_outdated(self._project, state, self._name, names)
        say = list(state.pipeline.problems)
        distinct: dict[object, Result] = {}
        for result in (current.result(each.lineage) for each in self._results):
            # Above a foreach, a stage has one result in all its lineages.
            key = experiment(result.lineage), frozenset(result.digests.items())
            distinct.setdefault(key, result)
        for i, result in enumerate(distinct.values()):
            with self._known.use(result) as (store, runs):
                written = bring(store, runs, result, Live() if i else live)
                if written.columns and written.verb == "added":
                    store.show(written.columns)
                for run_id in self._elsewhere:
                    store.client.set_tag(run_id, PARENT, written.run_id)
                self._elsewhere = []
                say += [*written.notes, store.row_line(written.name, written.run_id)]
                say += [] if i + 1 < len(distinct) else [store.table_line()]
        return say

    def _adopt(self, store: Store) -> Live:
        """Return this stage's run: our own if the command used it or opened none, else its first.

        Further runs that the command opened become its children, as do those in an experiment that
        it has chosen itself: the row stays in that of dvc.yaml, with the others.
        """
        top: list[Run] = []
        for token in self._tokens:
            query = f"tags.`{TOKEN}` = '{token}'"
            found = store.client.search_runs(store.experiments(), query)
            free = [run for run in reversed(found) if PARENT not in run.data.tags]
            top += [r for r in free if r.info.experiment_id == store.experiment_id]
            self._elsewhere += [r.info.run_id for r in free if r not in top]
        own = store.client.get_run(self.run_id) if self.run_id else None
        if own is not None and self._is_used(store, own):
            first, others = own, top
        elif top:
            first, others = top[0], top[1:]
            if own is not None:
                store.client.delete_run(self.run_id)
            self._sent.clear()
            state = self._results[0].state
            tags = origin_tags(state, state.pipeline.stages[self._name])
            own_tags = {**processes.tags(store.root), **made_by(self._project)}
            log(store, first.info.run_id, tags={**tags, **own_tags})
        else:
            return self._live
        for run in others:
            store.client.set_tag(run.info.run_id, PARENT, first.info.run_id)
        if first is not own:
            name = first.info.run_name
            self._live = Live(first.info.run_id, name if is_random_name(name) else "")
        return self._live._replace(is_used=True)

    def _is_used(self, store: Store, own: Run) -> bool:
        """Whether the command has logged something to the run that we opened."""
        keys = {key for key, *_ in self._sent}
        data = own.data
        logged = own.outputs.model_outputs if own.outputs else []
        keys |= {key for key in data.metrics if key.startswith(PREFIX)}
        given = [logged, data.metrics.keys() - keys]
        if self._results[0].pipeline.stages[self._name].settings.open:  # else they are ours
            given += [data.params, own.inputs.dataset_inputs]
        return any(given) or store.has_artifacts(own.info.artifact_uri)
