"""Write rows to MLflow: find the run where results go, and give it what it lacks."""

import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple, TypeVar

from .store import Store  # before MLflow, which it sets up

# isort: split
from mlflow.entities import (
    Dataset,
    DatasetInput,
    InputTag,
    Metric,
    Param,
    Run,
    RunTag,
)

from . import models, processes, trees
from .content import Content, Input, Point, content_of, params_of
from .errors import ProjectError
from .faults import once_more
from .identity import Known, Row
from .models import UnservableModelError
from .origin import title
from .pipeline import Stage
from .placing import BEGUN, COMPLETE, Index, find, n_models
from .project import Project
from .state import State

_T = TypeVar("_T")

REPRODUCED, REPRODUCES, PARENT = "reproduced", "reproduces", "mlflow.parentRunId"
"""How often a result was made again; the run with the same result; a run's parent."""

TREE, KEPT = "tree.", "kept."
"""The tags with the git tree of each stage's result, and the commit that keeps it."""
LACKS = "tree.lacks"
"""The tag with what of a checkout is not in its tree."""

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
) -> Written:
    """Bring the results of a row into the store, unless they are there; `dry` writes nothing.

    Everything that is written twice is the same both times, so a write that was killed goes on in
    the same run. Raises what the store raises.
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
    return _fill(store, state, row, new, joins=joins)


def _revisit(
    store: Store, state: State, row: Row, has: Known, *, dry: bool, undelete: bool
) -> Written:
    """Restore a run from the trash, or add models that were not here, or not declared, before."""
    names = [*state.wanted(row)]
    if has.is_deleted:
        if undelete and not dry:
            _undelete(store, state, row, has.run_id)
        return Written("restored" if undelete else "deleted", "", has.run_id, names)
    if dry or has.n_models >= (n := n_declared(state, row)):
        return Written("", "", has.run_id, [])
    before = n_models(store.client.get_run(has.run_id))  # MLflow 3.0 does not find them by a search
    if before >= n:
        return Written("", "", has.run_id, [])
    notes = [note for name in names for note in _log_models(store, state, row, has.run_id, name)]
    run = store.client.get_run(has.run_id)
    verb = "completed" if n_models(run) > before else ""
    return Written(verb, run.info.run_name, has.run_id, names, notes)


def n_declared(state: State, row: Row) -> int:
    """Return how many models a row's results have that dvc.yaml says how to load."""
    stages = [stage for name in state.wanted(row) for stage in row.parts[name]]
    models_of = state.pipeline.models_of
    return sum(bool(model.loader_module) for s in stages for model, _ in models_of(s))


def _undelete(store: Store, state: State, row: Row, run_id: str) -> None:
    """Restore a run from the trash, and keep its results again: `forget` may have let them go."""
    store.client.restore_run(run_id)
    tags, _ = _keep(store, state, row, [*state.wanted(row)])
    log(store, run_id, tags=tags)


def write_live(store: Store, state: State, row: Row, live: Live) -> Written:
    """Bring the results of a row with a stage that has just run into the store.

    The stage's own run is the row, unless the results are known or join another run. Then it goes,
    or stays with a tag or as a child of that run if the stage's script has logged to it.
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


def open_run(
    store: Store, state: State, row: Row, names: Sequence[str], tags: Mapping[str, str] = {}
) -> Run:
    """Open a run for the results of these members."""
    tags = {**origin_tags(store, state, row.members[names[-1]]), **tags}
    name = title(state.project, row, names, state.origin)
    return store.client.create_run(store.experiment_id, state.origin.time, tags, name)


def origin_tags(store: Store, state: State, head: Stage) -> dict[str, str]:
    """Return the tags of a run that say where its results come from."""
    tags = {**state.origin.tags(), **processes.tags(store.root), "dvc.stage": head.name}
    if state.pipeline.folder:
        tags["folder"] = state.pipeline.folder
    tags["mlflow.source.name"] = head.command.partition("\n")[0][:500]
    return tags


def _begun(wanted: Mapping[str, str]) -> dict[str, str]:
    return {f"{BEGUN}{name}": digest for name, digest in wanted.items()}


def _fill(
    store: Store,
    state: State,
    row: Row,
    names: Sequence[str],
    *,
    joins: Known | None = None,
    live: Live | None = None,
) -> Written:
    """Give a run what it lacks of these members, and end it; the members' tags are written last."""
    wanted = state.wanted(row)
    content = {name: content_of(state.project, state.pipeline, row, name) for name in names}
    points = [point for each in content.values() for point in each.points]
    kept, notes = _keep(store, state, row, names)
    tags = {**_begun(wanted), **kept}
    for each in content.values():
        tags |= each.tags
    if live and not live.is_used and not live.sent <= {*map(comparable, points)}:
        store.client.delete_run(live.run_id)  # a curve was written anew
        live = Live()
    run_id = joins.run_id if joins else live.run_id if live else ""
    if run_id:
        run = store.client.get_run(run_id)
    else:
        run, tags = open_run(store, state, row, [*wanted], tags), {}
        run_id = run.info.run_id
    was_killed = joins is not None and joins.begun.keys() > joins.complete.keys()
    sent = live.sent if live else _sent(store, run) if was_killed else frozenset()
    params, wrong = params_of(row, [*wanted])
    for key, value in params.items():
        if (given := run.data.params.get(key, value)) != value:
            wrong.append(f"param {key!r}: the script logged {given!r}, DVC has {value!r}")
    new = {key: value for key, value in params.items() if key not in run.data.params}
    at = int(time.time() * 1000) if live else state.origin.time
    # Of two values at one step, the table shows the later one.
    metrics = [
        Metric(point.key, point.value, at + point.is_final, point.step)
        for point in points
        if comparable(point) not in sent
    ]
    log(store, run_id, metrics, new, tags)
    _log_files(store, state.project, run, [*content.values()])
    notes += wrong
    complete = {}
    for name in names:
        notes += content[name].notes + _log_models(store, state, row, run_id, name)
        if lacking := content[name].lacking:
            bring = "bring them back with dvc checkout, dvc pull or git checkout, and record again"
            if state.project.is_past:
                bring = "with --fetch they come from DVC's remote"
            notes.append(f"{', '.join(lacking[:5])}: not as in dvc.lock; {bring}")
        else:
            complete[name] = wanted[name]
    if run.info.status != "FINISHED" or live:
        store.client.set_terminated(run_id, end_time=at)
    log(store, run_id, tags={f"{COMPLETE}{name}": digest for name, digest in complete.items()})
    scores = [f"metrics.{point.key}" for point in points if point.is_final]
    columns = [*scores[:6], *(f"params.{key}" for key in params)][:12]
    verb = ("completed" if complete else "") if joins else "added"
    before = joins or Known(run_id, {}, {})
    known = Known(run_id, {**before.begun, **wanted}, {**before.complete, **complete})
    return Written(verb, run.info.run_name, run_id, names, notes, columns, known)


def _keep(
    store: Store, state: State, row: Row, names: Sequence[str]
) -> tuple[dict[str, str], list[str]]:
    """Keep the results of a row as a git tree; return its tags, and what could not be kept."""
    try:
        kept = trees.of_results(state, row, store.root)
    except (ProjectError, OSError) as error:
        return {}, [f"the row cannot be restored: {error}"]
    if kept is None:
        return {}, []
    tags = {
        f"{start}{name}": value
        for name in names
        for start, value in ((TREE, kept.tree), (KEPT, kept.commit))
    }
    notes = [f"not kept for `dvc-mlflow restore`: {what}" for what in kept.lacks]
    return tags | ({LACKS: "; ".join(kept.lacks)[:5000]} if kept.lacks else {}), notes


def _sent(store: Store, run: Run) -> frozenset[tuple[str, str, int]]:
    """Return the points of a run whose recording was killed."""
    keys = run.data.metrics
    found = [m for key in keys for m in store.client.get_metric_history(run.info.run_id, key)]
    return frozenset(comparable(Point(m.key, m.value, m.step)) for m in found)


def comparable(point: Point) -> tuple[str, str, int]:
    """Return a point as it is equal to others: NaN never is, and a store keeps no infinity."""
    greatest = sys.float_info.max
    value = max(-greatest, min(greatest, point.value)) if point.value == point.value else 0.0
    return point.key, f"{value}" if point.value == point.value else "nan", point.step


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


def _log_files(store: Store, project: Project, run: Run, content: Sequence[Content]) -> None:
    """Give a run the data sets and the files of its stages."""
    if inputs := [_input(project, each) for some in content for each in some.inputs]:
        once_more(lambda: store.client.log_inputs(run.info.run_id, inputs))
    if files := {path: body for some in content for path, body in some.files.items()}:
        with TemporaryDirectory() as folder:
            for path, body in files.items():
                file = Path(folder, path)
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(body)
            store.client.log_artifacts(run.info.run_id, folder)


def _input(project: Project, given: Input) -> DatasetInput:
    """Return a data set whose source has the bytes with its md5, or fails to load.

    The source names DVC's file by the md5; for a folder that is the list of its files.
    """
    kind, address = project.address(given.md5)
    source = json.dumps({"url" if kind == "http" else "uri": address})
    dataset = Dataset(given.path[-250:], given.md5[:36], kind, source)
    return DatasetInput(dataset, [InputTag("mlflow.data.context", given.stage[:250])])


def log(
    store: Store,
    run_id: str,
    metrics: Sequence[Metric] = (),
    params: Mapping[str, str] | None = None,
    tags: Mapping[str, str] | None = None,
) -> None:
    """Log any number of metrics, params and tags, in as few requests as MLflow allows."""
    pairs = [Param(*pair) for pair in (params or {}).items()]
    labels = [RunTag(*pair) for pair in (tags or {}).items()]
    parts = (_batches(metrics, 800), _batches(pairs, 100), _batches(labels, 100))
    for some_metrics, some_params, some_tags in zip_longest(*parts, fillvalue=()):
        store.client.log_batch(run_id, some_metrics, some_params, some_tags)


def _batches(items: Sequence[_T], most: int) -> Iterator[list[_T]]:
    for i in range(0, len(items), most):
        yield list(items[i : i + most])
