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
from ..pipeline.row import NOWHERE, Match, Part, Point, Row, RowKey, StoredRun, digest_of
from ..pipeline.tags import (
    FOUND_BY,
    LIVE,
    NAME,
    NAMED,
    NOTE,
    NOTED,
    PARENT,
    REPRODUCES,
    TOKEN,
    UNREAD,
    WHOLE,
)
from .models import log_model
from .run_data import as_metric, comparable, log, log_files, log_inputs, stored
from .runs import stored_run, whole_text
from .store import Store

_LONGEST_TAG = 5000  # characters
_OF_THE_MACHINE = "system/"
"""How the keys of MLflow's system metrics begin."""


class Live(NamedTuple):
    """The run of a stage that has just ended."""

    run_id: str = ""
    name: str = ""
    """The name that it has from the tool, or that MLflow has made up."""
    is_used: bool = False
    """Whether the stage's script has logged to it."""
    tags: Mapping[str, str] = {}
    """What ran the code, if the stage has opened no run."""


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


def upsert(store: Store, row: Row, where: Match, live: Live | None = None) -> Written:
    """Write a row to its run: the one with its results, the one they join, the live or a new one.

    The lock of the store must be held. Raises what the store raises.
    """
    found = where.has or where.joins
    if live and found and live.run_id != found.run_id:
        leave(store, live, {(REPRODUCES if where.has else PARENT): found.run_id})
        live = Live(tags=live.tags)
    run, is_new, notes = _run(store, row, found, live)
    is_live = live is not None and bool(live.run_id)
    at = int(time.time() * 1000) if is_live else row.time
    points = _lacking(store, None if is_new else run, row)
    has_ended = run.info.status == "FINISHED" and run.info.end_time  # else somebody has ended it
    metrics = [as_metric(point, has_ended or at) for point in points]
    params = {key: text for key, text in row.params.items() if key not in run.data.params}
    tags = {} if is_new else _tags(store, row, run, live, is_joined=where.has is None)
    log(store, run.info.run_id, metrics, params, tags)
    notes += [*row.notes, *row.contradicted(run.data.params), *_log_parts(store, run, row.parts)]
    if is_live or (run.info.end_time and run.info.status != "FINISHED"):  # such as KILLED
        store.client.set_terminated(run.info.run_id, end_time=at)
    elif run.info.status != "FINISHED":  # nobody knows how long it took
        store.client.update_run(run.info.run_id, "FINISHED")
    log(store, run.info.run_id, tags=_last_tags(row, run, found))
    name = tags.get(NAME, run.info.run_name or "")
    return Written(
        _verb(row, where, points), name, run.info.run_id, _new(row, where), notes, row.measures
    )


def planned(store: Store, row: Row, where: Match) -> Written:
    """Return what `upsert` would do for a row; nothing is written."""
    found = where.has or where.joins
    run = store.client.get_run(found.run_id) if found and row.points else None
    run_id, name = (found.run_id, found.name) if found else ("", row.name)
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


def _run(
    store: Store, row: Row, found: StoredRun | None, live: Live | None
) -> tuple[Run, bool, list[str]]:
    """Return the run that gets a row, whether it is new, and notes."""
    notes: list[str] = []
    if run_id := found.run_id if found else live.run_id if live else "":
        run = store.client.get_run(run_id)
        if found or live is None or not _has_other_points(store, run, row, live):
            return run, False, notes
        if live.is_used:  # what the script has logged would be lost with the run
            notes.append("a curve was written anew; the row also has points of the earlier one")
            return run, False, notes
        store.client.delete_run(run_id)
    tags = {**row.origin, **row.tags, **(live.tags if live else {}), **row.part_tags}
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


def _has_other_points(store: Store, run: Run, row: Row, live: Live) -> bool:
    """Whether a live run has points that the row has not; a script's own are nobody else's."""
    points = row.points
    keys, known = {point.key for point in points}, {*map(comparable, points)}
    has = (each for each in stored(store, run) if each[0] in keys or not live.is_used)
    return not {each for each in has if not each[0].startswith(_OF_THE_MACHINE)} <= known


def _tags(
    store: Store, row: Row, run: Run, live: Live | None, *, is_joined: bool
) -> dict[str, str]:
    """Return the tags that a run lacks, but for those that are written last.

    It `is_joined` if it gets results that it has not.
    """
    has, tags = run.data.tags, {**row.tags, **row.part_tags, **(live.tags if live else {})}
    is_better = row.wanted.standing.is_better(stored_run(run, store).standing)
    if is_better or WHOLE not in has:
        tags |= row.origin
    if is_joined:  # until it is complete, nobody else takes it for what a dead process has left
        tags |= processes.process_tags(store.root)
    is_more = is_better or is_joined or WHOLE not in has
    if is_more and run.info.run_name in (has.get(NAMED), live.name if live else None):
        tags |= {NAME: row.name, NAMED: row.name}
    note = has.get(NOTE, "")
    if is_more and (start := _own_start(note, has.get(NOTED, ""))) is not None:
        tags |= {**noted(row.note), NOTE: row.note + note[start:]}
    return {key: text for key, text in tags.items() if has.get(key) != text}


def _own_start(note: str, known: str) -> int | None:
    """Return where a person's words begin after the tool's own; None if these have been changed."""
    ends = [len(note), *(found.start() for found in re.finditer("\n\n", note))]
    return next((end for end in ends if not note or digest_of(note[:end])[:8] == known), None)


def _last_tags(row: Row, run: Run, found: StoredRun | None) -> dict[str, str]:
    """Return the tags that say what a run has, which are written last."""
    tags, standing = run.data.tags, found.standing if found else NOWHERE
    if row.wanted.standing.is_better(standing):
        standing = row.wanted.standing
    digits = dict.fromkeys([*tags.get(FOUND_BY, "").split(), *row.digits])
    last = {FOUND_BY: " ".join(digits)[-_LONGEST_TAG:], LIVE: ""}
    if row.parts:
        last[UNREAD] = "; ".join(row.unread)[:_LONGEST_TAG]
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
                notes.append(f"model {model.path}: {error}")
        notes += [*part.notes, *part.notes_unread()]
    return notes


def written_on(run: Run) -> bool:
    """Whether a run is not only the tool's: somebody has named or noted it, or a script used it."""
    tags = run.data.tags
    is_named = NAMED in tags and tags[NAMED] != run.info.run_name
    is_noted = NOTED in tags and tags[NOTED] != digest_of(tags.get(NOTE, ""))[:8]
    return bool(tags.get(TOKEN)) or is_named or is_noted


def leave(store: Store, live: Live, tags: Mapping[str, str]) -> None:
    """Delete the run of a stage whose result is in another, or tag it if a script has used it."""
    if not live.run_id:
        return
    store.client.set_terminated(live.run_id)
    if live.is_used:
        log(store, live.run_id, tags=tags)
    else:
        store.client.delete_run(live.run_id)
