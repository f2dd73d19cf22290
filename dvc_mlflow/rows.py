"""Write rows to MLflow: find the run where results go, and give it what it lacks."""

import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
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
    ViewType,
)

from . import models, processes, trees
from .content import Content, Input, Point, content_of, params_of
from .errors import ProjectError
from .faults import once_more
from .identity import Known, Place, Row, place
from .models import UnservableModelError
from .origin import title
from .pipeline import Stage
from .project import Project
from .state import State

BEGUN, COMPLETE = "begun.", "lock."
"""The tags of a run with the digests of its stages: what it is for, and, written last, has."""

_T = TypeVar("_T")

REPRODUCED, REPRODUCES, PARENT = "reproduced", "reproduces", "mlflow.parentRunId"
"""How often a result was made again; the run with the same result; a run's parent."""

TREE, KEPT = "tree.", "kept."
"""The tags with the git tree of each stage's result, and the commit that keeps it."""
LACKS = "tree.lacks"
"""The tag with what of a checkout is not in its tree."""

AT_MOST = 600
"""Seconds that a server may take for a row; a model can have a few GB."""

_MOST_METRICS, _MOST_OTHERS = 1000, 100  # in one request


class Written(NamedTuple):
    """What was done for a row."""

    verb: str
    """`added`, `completed`, `restored`, `deleted` (and left so), or "" if nothing was to do."""
    name: str
    run_id: str
    stages: Sequence[str]
    notes: Sequence[str] = ()
    """What could not be recorded, one line each."""
    columns: Sequence[str] = ()
    """What a table of such rows shows, if nobody has chosen its columns."""


class Live(NamedTuple):
    """The run of a stage that has just ended, if it opened one."""

    run_id: str = ""
    sent: frozenset[tuple[str, str, int]] = frozenset()
    """The points that it has."""
    is_used: bool = False
    """Whether the stage's script has logged to it."""


def write(
    store: Store, state: State, row: Row, *, dry: bool = False, undelete: bool = False
) -> Written:
    """Bring the results of a row into the store, unless they are there; `dry` writes nothing.

    Everything that is written twice is the same both times, so a write that was killed goes on in
    the same run. Raises what the store raises.
    """
    wanted = state.wanted(row)
    where = find(store, wanted)
    if where.has is not None:
        if not where.has.is_deleted:
            return Written("", "", where.has.run_id, [])
        if undelete and not dry:
            store.client.restore_run(where.has.run_id)
        return Written("restored" if undelete else "deleted", "", where.has.run_id, [*wanted])
    joins = where.joins
    new = [name for name in wanted if not (joins and name in joins.complete)]
    if dry:
        name = title(state.project, row, [*wanted], state.origin)
        return Written("completed" if joins else "added", name, joins.run_id if joins else "", new)
    run_id = joins.run_id if joins else open_run(store, state, row, [*wanted], _begun(wanted))
    return _fill(store, state, row, run_id, new, joins=joins)


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
            store.client.restore_run(known)
        run = store.client.get_run(known)
        count = run.data.tags.get(REPRODUCED, "")
        store.client.set_tag(known, REPRODUCED, str(int(count) + 1 if count.isdecimal() else 1))
        leave(store, live, {REPRODUCES: known})
        return Written("", run.info.run_name, known, [])
    joins = where.joins
    new = [name for name in wanted if not (joins and name in joins.complete)]
    if joins is not None:
        leave(store, live, {PARENT: joins.run_id})
        return _fill(store, state, row, joins.run_id, new, joins=joins)
    run_id = live.run_id or open_run(store, state, row, [*wanted])
    return _fill(store, state, row, run_id, new, live=live)


def leave(store: Store, live: Live, tags: Mapping[str, str]) -> None:
    """Delete the run of a stage whose results are in another, or tag it if a script has used it."""
    if live.run_id and live.is_used:
        log(store, live.run_id, tags=tags)
        store.client.set_terminated(live.run_id)
    elif live.run_id:
        store.client.delete_run(live.run_id)


def open_run(
    store: Store, state: State, row: Row, names: Sequence[str], tags: Mapping[str, str] = {}
) -> str:
    """Open a run for the results of these members, and return its id."""
    tags = {**origin_tags(store, state, row.members[names[-1]]), **tags}
    name = title(state.project, row, names, state.origin)
    run = store.client.create_run(store.experiment_id, state.origin.time, tags, name)
    return str(run.info.run_id)


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
    run_id: str,
    names: Sequence[str],
    *,
    joins: Known | None = None,
    live: Live | None = None,
) -> Written:
    """Give a run what it lacks of these members, and end it; the members' tags are written last."""
    wanted, complete = state.wanted(row), {}
    content = {name: content_of(state.project, state.pipeline, row, name) for name in names}
    points = [point for each in content.values() for point in each.points]
    tree_tags, notes = _keep(store, state, row, names)
    if live and not live.is_used and not live.sent <= {*map(comparable, points)}:
        store.client.delete_run(run_id)  # a curve was written anew
        run_id, live = open_run(store, state, row, [*wanted]), Live()
    run = store.client.get_run(run_id)
    was_killed = joins is not None and joins.begun.keys() > joins.complete.keys()
    sent = live.sent if live else _sent(store, run) if was_killed else frozenset()
    log(store, run_id, tags=_begun(wanted))
    params, wrong = params_of(row, [*wanted])
    for key, value in params.items():
        if (given := run.data.params.get(key, value)) != value:
            wrong.append(f"param {key!r}: the script logged {given!r}, DVC has {value!r}")
    notes += wrong
    log(store, run_id, params={k: v for k, v in params.items() if k not in run.data.params})
    at = int(time.time() * 1000) if live else state.origin.time
    for name in names:
        new = [p for p in content[name].points if comparable(p) not in sent]
        _log_content(store, state.project, run_id, replace(content[name], points=new), at)
        notes += content[name].notes + _log_models(store, state, row, run_id, name)
        if lacking := content[name].lacking:
            bring = "bring them back with dvc checkout, dvc pull or git checkout, and record again"
            notes.append(f"{', '.join(lacking[:5])}: not as in dvc.lock; {bring}")
        else:
            complete[f"{COMPLETE}{name}"] = wanted[name]
    if run.info.status != "FINISHED" or live:
        store.client.set_terminated(run_id, end_time=at)
    log(store, run_id, tags={**tree_tags, **complete})
    scores = [f"metrics.{point.key}" for point in points if point.is_final]
    columns = [*scores[:6], *(f"params.{key}" for key in params)][:12]
    verb = "completed" if joins else "added"
    return Written(verb, run.info.run_name, run_id, names, notes, columns)


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


def find(store: Store, wanted: Mapping[str, str]) -> Place:
    """Return where results go, by their digests."""
    runs: dict[str, Run] = {}
    if not store.experiment_id:
        return Place()
    experiments = store.experiments()
    for name, digest in wanted.items():
        token = None
        while True:
            page = store.client.search_runs(
                experiments,
                f"tags.`{BEGUN}{name}` = '{digest}'",
                ViewType.ALL,
                page_token=token,
            )
            runs |= {run.info.run_id: run for run in page}
            if not (token := page.token):
                break
    oldest = sorted(runs.values(), key=lambda run: (run.info.start_time or 0, run.info.run_id))
    return place(wanted, map(_known, oldest))


def _known(run: Run) -> Known:
    tags = run.data.tags
    begun, complete = (
        {key.removeprefix(start): value for key, value in tags.items() if key.startswith(start)}
        for start in (BEGUN, COMPLETE)
    )
    deleted = run.info.lifecycle_stage == "deleted"
    at_work = run.info.status == "RUNNING" and not processes.has_ended(tags)
    return Known(run.info.run_id, begun, complete, deleted, at_work)


def _log_content(store: Store, project: Project, run_id: str, content: Content, at: int) -> None:
    """Give a run the metrics, curves, files, data sets and md5s of a stage."""
    # Of two values at one step, the table shows the later one.
    points = [Metric(p.key, p.value, at + p.is_final, p.step) for p in content.points]
    log(store, run_id, points, tags=content.tags)
    if content.inputs:
        inputs = [_input(project, each) for each in content.inputs]
        once_more(lambda: store.client.log_inputs(run_id, inputs))
    if content.files:
        with TemporaryDirectory() as folder:
            for path, body in content.files.items():
                file = Path(folder, path)
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(body)
            store.client.log_artifacts(run_id, folder)


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
    """Log any number of metrics, params and tags."""
    for some in _batches(metrics, _MOST_METRICS):
        store.client.log_batch(run_id, metrics=some)
    for pairs in _batches(list((params or {}).items()), _MOST_OTHERS):
        store.client.log_batch(run_id, params=[Param(*pair) for pair in pairs])
    for pairs in _batches(list((tags or {}).items()), _MOST_OTHERS):
        store.client.log_batch(run_id, tags=[RunTag(*pair) for pair in pairs])


def _batches(items: Sequence[_T], most: int) -> Iterator[list[_T]]:
    for i in range(0, len(items), most):
        yield list(items[i : i + most])
