"""Write rows to MLflow: find the run where results go, and give it what it lacks."""

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from .store import Store  # before MLflow, which it sets up

# isort: split
from mlflow.entities import Metric

from . import draft, models
from .content import Point
from .draft import Draft
from .identity import Known, Row
from .models import UnservableModelError
from .origin import title
from .placing import Index, find, n_models
from .sending import comparable, log, log_files, sent
from .settings import Model
from .state import State
from .tags import COMPLETE

REPRODUCED, REPRODUCES, PARENT = "reproduced", "reproduces", "mlflow.parentRunId"
"""How often a result was made again; the run with the same result; a run's parent."""

AT_MOST = 600
"""Seconds that a server may take for a row; a model can have a few GB."""


class Written(NamedTuple):
    """What was done for a row."""

    verb: str
    """`added`, `completed`, `restored`, `deleted` (and left so), or "" if nothing could be done."""
    name: str
    run_id: str
    stages: Sequence[str]
    notes: Sequence[str] = ()
    """What could not be recorded, one line each."""
    columns: Sequence[str] = ()
    """What a table of such rows shows, if nobody has chosen its columns."""
    known: Known | None = None
    """What the run holds now, if something was written."""


class Live(NamedTuple):
    """The run of a stage that has just ended, if it opened one."""

    run_id: str = ""
    sent: frozenset[tuple[str, str, int]] = frozenset()
    """The points that it has."""
    is_used: bool = False
    """Whether the stage's script has logged to it."""


def write(
    store: Store,
    state: State,
    row: Row,
    *,
    dry: bool = False,
    undelete: bool = False,
    index: Index | None = None,
    given: Draft | None = None,
) -> Written:
    """Bring the results of a row into the store, unless they are there; `dry` writes nothing.

    With a draft that was `given`, only models are read from the project. Whatever is written twice
    is the same both times, so a write that was killed is completed in the same run. Raises what the
    store raises.
    """
    wanted = state.wanted(row)
    where = index.find(wanted) if index else find(store, wanted)
    if where.has is not None:
        return _revisit(store, state, row, where.has, dry=dry, undelete=undelete)
    joins = where.joins
    new = [name for name in wanted if not (joins and name in joins.complete)]
    if dry:
        name = title(state.project, row, [*wanted], state.origin)
        return Written("completed" if joins else "added", name, joins.run_id if joins else "", new)
    return _fill(store, state, row, new, joins=joins, given=given)


def _revisit(
    store: Store, state: State, row: Row, has: Known, *, dry: bool, undelete: bool
) -> Written:
    """Restore a run from the trash, or add models that were missing or not declared before."""
    names = [*state.wanted(row)]
    if has.is_deleted:
        if undelete and not dry:
            _undelete(store, state, row, has.run_id)
        return Written("restored" if undelete else "deleted", "", has.run_id, names)
    if dry or has.n_models >= (n := n_declared(state, row)):
        return Written("", "", has.run_id, [])
    before = n_models(store.client.get_run(has.run_id))  # a search in MLflow 3.0 leaves them out
    if before >= n:
        return Written("", "", has.run_id, [])
    notes = [note for name in names for note in _log_models(store, state, row, has.run_id, name)]
    run = store.client.get_run(has.run_id)
    verb = "completed" if n_models(run) > before else ""
    return Written(verb, run.info.run_name, has.run_id, names, notes)


def has_models(state: State, row: Row) -> bool:
    """Whether results of a row have models, which `write` reads from the project."""
    return any(True for _ in _models(state, row))


def n_declared(state: State, row: Row) -> int:
    """Return how many models a row's results have that dvc.yaml says how to load."""
    return sum(bool(model.loader_module) for model in _models(state, row))


def _models(state: State, row: Row) -> Iterator[Model]:
    for name in state.wanted(row):
        for stage in row.parts[name]:
            yield from (model for model, _ in state.pipeline.models_of(stage))


def _undelete(store: Store, state: State, row: Row, run_id: str) -> None:
    """Restore a run from the trash, and keep its results again, as `forget` may have run."""
    store.client.restore_run(run_id)
    kept, _ = draft.keep(state, row, store.root)
    log(store, run_id, tags=draft.kept_tags(kept, state.wanted(row)))


def write_live(store: Store, state: State, row: Row, live: Live) -> Written:
    """Bring the results of a row into the store after one of its stages has run.

    The stage's own run becomes the row, unless another run has the results or they join one. Then
    it is deleted; if the stage's script has logged to it, it stays, with a tag or as that run's
    child.
    """
    wanted = state.wanted(row)
    where = find(store, wanted)
    if where.has is not None:
        known = where.has.run_id
        if where.has.is_deleted:
            _undelete(store, state, row, known)
        run = store.client.get_run(known)
        count = run.data.tags.get(REPRODUCED, "")
        store.client.set_tag(known, REPRODUCED, str(int(count) + 1 if count.isdecimal() else 1))
        leave(store, live, {REPRODUCES: known})
        return Written("", run.info.run_name, known, [])
    joins = where.joins
    new = [name for name in wanted if not (joins and name in joins.complete)]
    if joins is not None:
        leave(store, live, {PARENT: joins.run_id})
        return _fill(store, state, row, new, joins=joins)
    return _fill(store, state, row, new, live=live)


def leave(store: Store, live: Live, tags: Mapping[str, str]) -> None:
    """Delete the run of a stage whose results are in another, or tag it if a script has used it."""
    if not live.run_id:
        return
    store.client.set_terminated(live.run_id)
    if live.is_used:
        log(store, live.run_id, tags=tags)
    else:
        store.client.delete_run(live.run_id)


def _fill(
    store: Store,
    state: State,
    row: Row,
    names: Sequence[str],
    *,
    joins: Known | None = None,
    live: Live | None = None,
    given: Draft | None = None,
) -> Written:
    """Give a run what it lacks of these members, and end it; the members' tags are written last."""
    wanted = state.wanted(row)
    new = given or draft.read(state, row, names, store.root)
    content = {name: new.content[name] for name in names}
    points = [point for each in content.values() for point in each.points]
    tags = {**new.begun, **draft.kept_tags(new.kept, names)}
    for each in content.values():
        tags |= each.tags
    if live and not live.is_used and not live.sent <= {*map(comparable, points)}:
        store.client.delete_run(live.run_id)  # a curve was rewritten
        live = Live()
    run_id = joins.run_id if joins else live.run_id if live else ""
    if run_id:
        run = store.client.get_run(run_id)
    else:
        tags |= new.origin
        run = store.client.create_run(store.experiment_id, new.time, tags, new.title)
        run_id, tags = run.info.run_id, {}
    was_killed = joins is not None and joins.begun.keys() > joins.complete.keys()
    known = live.sent if live else sent(store, run) if was_killed else frozenset()
    notes = [*new.notes, *new.contradicted(run.data.params)]
    params = {key: value for key, value in new.params.items() if key not in run.data.params}
    at = int(time.time() * 1000) if live else new.time
    metrics = [_metric(point, at) for point in points if comparable(point) not in known]
    log(store, run_id, metrics, params, tags)
    log_files(store, run, content.values(), new.sources)
    complete = {}
    for name in names:
        notes += content[name].notes + _log_models(store, state, row, run_id, name)
        if lacking := content[name].lacking:
            notes.append(f"{', '.join(lacking[:5])}: not as in dvc.lock; {_cure(state)}")
        else:
            complete[name] = wanted[name]
    if run.info.status != "FINISHED" or live:
        store.client.set_terminated(run_id, end_time=at)
    log(store, run_id, tags={f"{COMPLETE}{name}": digest for name, digest in complete.items()})
    verb = ("completed" if complete else "") if joins else "added"
    before = joins or Known(run_id, {}, {})
    has_now = Known(run_id, {**before.begun, **wanted}, {**before.complete, **complete})
    return Written(verb, run.info.run_name, run_id, names, notes, _columns(new, points), has_now)


def _metric(point: Point, at: int) -> Metric:
    # Of two values at one step, the table shows the later one: the final one.
    return Metric(point.key, point.value, at + point.is_final, point.step)


def _cure(state: State) -> str:
    """Return how files that are not as in dvc.lock are brought back."""
    if state.project.is_past:
        return "with --fetch they come from DVC's remote"
    return "bring them back with dvc checkout, dvc pull or git checkout, and record again"


def _columns(new: Draft, points: Sequence[Point]) -> list[str]:
    """Return what the table should show of a row, unless dvc.yaml says it."""
    scores = [f"metrics.{point.key}" for point in points if point.is_final]
    return [*scores[:6], *(f"params.{key}" for key in new.params)][:12]


def _log_models(store: Store, state: State, row: Row, run_id: str, name: str) -> list[str]:
    """Link a run to the models of a member; return what cannot be served, one line each."""
    notes = []
    for stage in row.parts[name]:
        for model, output in state.pipeline.models_of(stage):
            try:
                models.log(store, state.project, run_id, model, output, name)
            except UnservableModelError as error:
                notes.append(f"model {model.path}: {error}")
    return notes
