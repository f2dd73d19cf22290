"""A stage's row while its command runs: open it, follow its curves, and complete it."""

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import NamedTuple

from .store import NOTE, Store  # before MLflow, which it sets up

# isort: split
from mlflow.entities import Metric, Run

from . import identity, rows, state
from .curves import Follower
from .draft import origin_tags
from .errors import StoreError
from .faults import AWAY, masked
from .identity import Row
from .origin import title
from .project import Project
from .protocol import TOKEN, Request
from .repository import environment, main_repository
from .rows import PARENT, Live
from .sending import comparable, log


class Stores:
    """The stores of one `dvc` process, each opened once.

    One that cannot be opened is not used again, and none is once the server does not answer: a
    time-out costs its seconds once, not in every stage.
    """

    def __init__(self) -> None:
        self._opened: dict[tuple[str, str], Store] = {}
        self._errors: dict[tuple[str, str], StoreError] = {}
        self._away: StoreError | None = None

    @contextmanager
    def use(self, row: Row, folder: str) -> Iterator[Store]:
        """Yield the store of a row, locked in the block; raises `StoreError`."""
        key = state.experiment(row), folder
        if error := self._away or self._errors.get(key):
            raise error
        try:
            if key not in self._opened:
                store = Store(main_repository(), key[0], state.columns(row), folder=folder)
                self._opened[key] = store
            store = self._opened[key]
            with store.lock(), store.errors_reported(rows.AT_MOST):
                yield store
        except StoreError as error:
            if error.cure == AWAY:
                self._away = error
            elif key not in self._opened:
                self._errors[key] = error
            raise


class Ended(NamedTuple):
    """How a stage has ended: lines for the user, and 1 if its inputs changed, else 0."""

    say: list[str]
    code: int


class LiveRow:
    """The row of a running stage; its methods raise `StoreError` and `ProjectError`."""

    def __init__(self, stores: Stores, request: Request) -> None:
        self.run_id = ""
        self._stores, self._request = stores, request
        self._project = Project()
        self._name = self._project.begin(request.stage, request.folder)
        self._inputs = self._project.inputs(request.began, request.params)
        self._state, self._rows = self._read()
        self._sent: set[tuple[str, str, int]] = set()
        row, stage = self._rows[0], self._state.pipeline.stages[self._name]
        self._curves = Follower(self._project.root, self._state.pipeline, row, stage)

    def open(self) -> None:
        """Open a run if this stage begins a row or draws curves; others join one at the end."""
        row = self._rows[0]
        names = {name for name, stage in row.members.items() if stage.name == self._name}
        above = row.scope(names)[:-1]
        if self._curves.draws or not any(stage in row.members.values() for stage in above):
            self._open()

    def follow(self) -> None:
        """Send what the command has added to its curves."""
        if self.run_id and (points := self._curves.read()):
            now = int(time.time() * 1000)
            with self._stores.use(self._rows[0], self._project.folder) as store:
                log(store, self.run_id, [Metric(p.key, p.value, now, p.step) for p in points])
            self._sent |= {comparable(point) for point in points}

    def finish(self, code: int, stopped: int, said: str) -> Ended:
        """Complete the row of a command that has ended, or mark it as FAILED or KILLED."""
        try:
            if code or stopped:
                status = "KILLED" if stopped or code < 0 else "FAILED"
                self._end(status, f"exit status {code if code >= 0 else 128 - code}: {said}")
                return Ended([], 0)
            if changed := self._changed():
                what = f"{', '.join(changed[:3])} changed while the stage ran"
                with suppress(StoreError):  # the stage must fail even if MLflow cannot be reached
                    self._end("FAILED", what)
                return Ended([f"{what}; run `dvc repro` again"], 1)
            if self._project.lacks_outputs():
                self._end("FAILED", "an output is missing")
                return Ended([], 0)
            return Ended(self._complete(), 0)
        finally:
            self._project.close()

    def drop(self) -> None:
        """Mark the row as KILLED, as the stage's `run` is gone."""
        try:
            self._end("KILLED", "the stage was killed")
        finally:
            self._project.close()

    def _read(self) -> tuple[state.State, list[Row]]:
        """Return what DVC knows now, and the rows that have this stage as a member."""
        found = state.read(self._project, began=self._request.began)
        stage = found.pipeline.stages[self._name]
        chosen = found.stages if stage in found.stages else [*found.stages, stage]
        own = identity.rows(found.pipeline, chosen)
        return found, [row for row in own if stage in row.members.values()]

    def _open(self) -> None:
        row = self._rows[0]
        names = [name for name, stage in row.members.items() if stage.name == self._name]
        origin = self._state.origin
        with self._stores.use(row, self._project.folder) as store:
            own = origin_tags(self._state, row.members[names[-1]], store.root)
            name = title(self._project, row, names, origin)
            opened = store.client.create_run(
                store.experiment_id, origin.time, {**own, **self._tags()}, name
            )
            self.run_id = opened.info.run_id

    def _tags(self) -> dict[str, str]:
        found = environment(self._project.md5("requirements.txt"))
        return {key: value for key, value in found.items() if value}

    def _changed(self) -> list[str]:
        now = self._project.inputs()
        return [path for path, value in self._inputs.items() if value is None or now[path] != value]

    def _end(self, status: str, why: str) -> None:
        """End the run of a stage that has no result; open it first if there is none yet."""
        self.follow()
        with self._stores.use(self._rows[0], self._project.folder) as store:
            self._adopt(store)
        if not self.run_id:
            self._open()
        with self._stores.use(self._rows[0], self._project.folder) as store:
            store.client.set_tag(self.run_id, NOTE, masked(why).strip(": ")[:1000])
            store.client.set_terminated(self.run_id, status)

    def _complete(self) -> list[str]:
        self._project.finish()
        self._state, self._rows = self._read()
        reason = self._state.reasons.get(self._name)
        with self._stores.use(self._rows[0], self._project.folder) as store:
            live = self._adopt(store)
            if reason:
                rows.leave(store, live, {})
                return [f"stage {self._name} is not recorded: {reason}"]
        say = list(self._state.pipeline.problems)
        current = self._without_outdated()
        for i, row in enumerate(self._rows):
            with self._stores.use(row, self._project.folder) as store:
                written = rows.write_live(store, current, row, Live() if i else live)
                if written.columns:
                    store.show(written.columns)
                say += [*written.notes, f"row {written.name!r}: {store.url(written.run_id)}"]
                say += [] if i + 1 < len(self._rows) else [f"all rows: {store.url()}"]
        return say

    def _without_outdated(self) -> state.State:
        """Return the state without outdated results of stages that DVC may run after this one."""
        known, pipeline = self._state.digests, self._state.pipeline
        own = pipeline.stages[self._name]
        others = {s.name for row in self._rows for s in row.members.values()}
        gone = {
            name
            for name in others & known.keys()
            if name != self._name
            and not pipeline.is_upstream(pipeline.stages[name], of=own)
            and not self._project.holds(name)
        }
        return replace(self._state, digests={k: v for k, v in known.items() if k not in gone})

    def _adopt(self, store: Store) -> Live:
        """Return this stage's run: our own if the command used it or opened none, else its first.

        Further runs that the command opened become its children.
        """
        query = f"tags.`{TOKEN}` = '{self._request.token}'"
        found = store.client.search_runs(store.experiments(), query)
        top = [run for run in reversed(found) if PARENT not in run.data.tags]
        own = store.client.get_run(self.run_id) if self.run_id else None
        if own is not None and self._is_used(store, own):
            first, others = own, top
        elif top:
            first, others = top[0], top[1:]
            if own is not None:
                store.client.delete_run(self.run_id)
            self._sent.clear()
            tags = origin_tags(self._state, self._state.pipeline.stages[self._name], store.root)
            log(store, first.info.run_id, tags={**tags, **self._tags()})
        else:
            return Live(self.run_id, frozenset(self._sent))
        for run in others:
            store.client.set_tag(run.info.run_id, PARENT, first.info.run_id)
        self.run_id = first.info.run_id
        return Live(self.run_id, frozenset(self._sent), is_used=True)

    def _is_used(self, store: Store, own: Run) -> bool:
        """Whether the command has logged something to the run that we opened."""
        keys = {key for key, *_ in self._sent}
        data = own.data
        logged = own.outputs.model_outputs if own.outputs else []
        given = (data.params, own.inputs.dataset_inputs, logged, data.metrics.keys() - keys)
        return any(given) or bool(store.client.list_artifacts(own.info.run_id))
