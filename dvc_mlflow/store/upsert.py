"""Bring a row to MLflow: find its run, and add what that lacks. Nothing else writes rows.

What decides a row is in one tag, written last. So a recording that was killed goes on in the same
run, and nothing is read for a row that has all. A row only gains: the commit that it names becomes
an older one of a higher rank, and what a person has written stays.
"""

import re
import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from mlflow.entities import Run
from mlflow.exceptions import MlflowException

from .. import processes
from ..errors import ModelError
from ..pipeline.row import LONGEST, NOWHERE, Match, Part, Point, Row, RowKey, StoredRun, digest_of
from ..pipeline.tags import (
    CHANGED,
    CLONE,
    FOUND_BY,
    LIVE,
    NAME,
    NAMED,
    NOTE,
    NOTED,
    PARENT,
    PROCESS,
    UNREAD,
    WHOLE,
)
from .models import log_model
from .run_data import as_metric, comparable, log, log_files, log_inputs, stored
from .runs import stored_run, whole_text
from .store import Store

_OF_THE_PROCESS = (CLONE, PROCESS)


class Begun(NamedTuple):
    """A run that was opened while a stage ran, and becomes the row of its result."""

    run: Run
    is_used: bool = False
    """Whether the stage's script has opened it."""
    goes_on: bool = False
    """Whether another stage of the row runs."""
    is_anew: bool = False
    """Whether it has something that the result has not, so that another run is made."""
    changed: Sequence[str] = ()
    """The inputs that were written while its stage ran."""


class Written(NamedTuple):
    """What was done for a row."""

    verb: str
    """`added`, `completed`, `deleted` (and left so), or "" if nothing was added."""
    name: str
    run_id: str
    stages: Sequence[str]
    """Those of which it has gained the results."""
    notes: Sequence[str] = ()
    """What could not be recorded, one line each."""
    measures: Sequence[str] = ()
    """The metrics that say how good the result is, best first, with signs."""


def upsert(store: Store, row: Row, where: Match, begun: Begun | None = None) -> Written:
    """Write a row to its run: the one with its results, the one they join, the begun or a new one.

    The lock of the store must be held. Raises what the store raises.
    """
    run, is_new, notes = _run(store, row, where, begun)
    at = int(time.time() * 1000) if begun else row.time
    points = _lacking(store, None if is_new else run, row)
    has_ended = run.info.status == "FINISHED" and run.info.end_time  # else somebody has ended it
    metrics = [as_metric(point, has_ended or at) for point in points]
    params = {key: text for key, text in row.params.items() if key not in run.data.params}
    goes_on = begun is not None and begun.goes_on
    tags = {} if is_new else _tags(store, row, run, where, goes_on=goes_on)
    if begun and begun.changed:
        tags[CHANGED] = ", ".join(begun.changed)[:LONGEST]
        notes.append(f"{tags[CHANGED]:.200} changed while the stage ran")
    log(store, run.info.run_id, metrics, params, tags)
    notes += [*row.notes, *row.contradicted(run.data.params), *_log_parts(store, run, row.parts)]
    if goes_on:
        store.client.update_run(run.info.run_id, "RUNNING")
    elif begun or (run.info.end_time and run.info.status != "FINISHED"):  # such as KILLED
        store.client.set_terminated(run.info.run_id, end_time=at)
    elif run.info.status != "FINISHED":  # nobody knows how long it took
        store.client.update_run(run.info.run_id, "FINISHED")
    live = begun.run.data.tags.get(LIVE, "") if begun and goes_on else ""
    log(store, run.info.run_id, tags=_last_tags(row, run, where.complete, live))
    name = tags.get(NAME, run.info.run_name or "")
    return Written(
        _verb(row, where, points), name, run.info.run_id, _new(row, where), notes, row.measures
    )


def planned(store: Store, row: Row, where: Match) -> Written:
    """Return what `upsert` would do for a row; nothing is written."""
    existing = where.run
    run = store.client.get_run(existing.run_id) if existing and row.points else None
    run_id, name = (existing.run_id, existing.name) if existing else ("", row.name)
    return Written(_verb(row, where, _lacking(store, run, row)), name, run_id, _new(row, where))


def _lacking(store: Store, run: Run | None, row: Row) -> list[Point]:
    """Return the points that a run lacks, if there is one already."""
    sent = stored(store, run) if run and row.points else frozenset()
    return [point for point in row.points if comparable(point) not in sent]


def _new(row: Row, where: Match) -> list[str]:
    """Return the stages whose results a run lacks."""
    return [n for n in row.wanted.digests if not (where.joins and n in where.joins.digests)]


def _verb(row: Row, where: Match, points: Sequence[Point]) -> str:
    if where.has is None:
        return "completed" if where.joins else "added"
    return "completed" if points or where.has.declared != row.wanted.declared else ""


def _run(store: Store, row: Row, where: Match, begun: Begun | None) -> tuple[Run, bool, list[str]]:
    """Return the run that gets a row, whether it is new, and notes."""
    existing, notes, process_tags = where.run, list[str](), dict[str, str]()
    if begun and begun.is_anew and not begun.is_used:
        process_tags = {key: begun.run.data.tags[key] for key in _OF_THE_PROCESS}
        store.client.delete_run(begun.run.info.run_id)
    elif begun and begun.is_anew:  # what the script has logged would be lost with the run
        notes.append("a curve was written anew; the row also has points of the earlier one")
        return begun.run, False, notes
    elif begun:
        return begun.run, False, notes
    elif existing:
        return store.client.get_run(existing.run_id), False, notes
    tags = {**row.origin, **row.tags, **process_tags}
    return new_run(store, row.time, tags, row.name, row.note), True, notes


def new_run(store: Store, start: int, tags: Mapping[str, str], name: str, note: str) -> Run:
    """Create a run with a name and a description that are the tool's.

    It is of this process, unless the tags say which other one it is of.
    """
    given = {**processes.process_tags(store.root), **tags, NAMED: name, **noted(note)}
    run = store.client.create_run(store.experiment_id, start, given, name)
    if not run.info.run_id:  # the client accepts any JSON
        raise MlflowException("the server's answer has no run")
    return run


def noted(note: str) -> dict[str, str]:
    """Return the tags of a description that is the tool's."""
    return {NOTE: note, NOTED: digest_of(note)[:8]}


def _tags(store: Store, row: Row, run: Run, where: Match, *, goes_on: bool) -> dict[str, str]:
    """Return the tags that a run lacks, but for those that are written last."""
    has, tags, is_joined = run.data.tags, {**row.tags}, where.has is None
    is_better = row.wanted.standing.is_better(stored_run(run, store).standing)
    if is_better or WHOLE not in has:
        tags |= row.origin
    if (
        is_joined and not goes_on
    ):  # until it is complete, nobody else takes it for what a dead process has left
        tags |= processes.process_tags(store.root)
    is_more = is_better or is_joined or WHOLE not in has
    if is_more and run.info.run_name == has.get(NAMED):
        tags |= {NAME: row.name, NAMED: row.name}
    note = has.get(NOTE, "")
    if is_more and (start := _own_start(note, has.get(NOTED, ""))) is not None:
        tags |= {**noted(row.note), NOTE: row.note + note[start:]}
    return {key: text for key, text in tags.items() if has.get(key) != text}


def _own_start(note: str, digest: str) -> int | None:
    """Return where a person's words begin after the tool's own; None if these have been changed."""
    ends = [len(note), *(found.start() for found in re.finditer("\n\n", note))]
    return next((end for end in ends if not note or digest_of(note[:end])[:8] == digest), None)


def _last_tags(row: Row, run: Run, complete: StoredRun | None, live: str) -> dict[str, str]:
    """Return the tags that say what a run has, which are written last."""
    tags, standing = run.data.tags, complete.standing if complete else NOWHERE
    if row.wanted.standing.is_better(standing):
        standing = row.wanted.standing
    digits = dict.fromkeys([*tags.get(FOUND_BY, "").split(), *row.digits])
    last = {FOUND_BY: " ".join(digits)[-LONGEST:], LIVE: live}
    if row.parts:
        last[UNREAD] = "; ".join(row.unread)[:LONGEST]
    last[WHOLE] = whole_text(standing, row.wanted.declared)
    return {key: text for key, text in last.items() if tags.get(key, "") != text}


def _log_parts(store: Store, run: Run, parts: Mapping[RowKey, Part]) -> list[str]:
    """Log data sets, files and models; return notes."""
    log_inputs(store, run, [each for part in parts.values() for each in part.inputs])
    files = {path: body for part in parts.values() for path, body in part.files.items()}
    notes = log_files(store, run, files)
    for part in parts.values():
        for model in part.models:
            try:
                log_model(store, run, model)
            except ModelError as error:
                notes.append(f"model {model.model.path}: {error}")
        notes += [*part.notes, *part.notes_unread()]
    return notes


def leave(store: Store, run_id: str, has: str = "", *, is_used: bool = False) -> None:
    """Delete the run of a stage; a script's stays, below the one that `has` its result."""
    store.client.set_terminated(run_id, "FINISHED" if is_used else "KILLED")  # not RUNNING
    if is_used:
        log(store, run_id, tags={LIVE: "", **({PARENT: has} if has else {})})
    else:
        store.client.delete_run(run_id)
