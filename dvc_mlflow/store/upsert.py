"""Bring a row to MLflow: find its run, and add what that lacks. Nothing else writes rows.

What decides a row is in one tag, written last. So a recording that was killed goes on in the same
run, and nothing is read for a row that has all. A row only gains: its declarations grow, the commit
it names becomes an older one of a higher rank, and what a person has written stays.
"""

import hashlib
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from mlflow.entities import Run
from mlflow.exceptions import MlflowException

from .. import processes
from ..errors import ModelError
from ..pipeline.row import FORMAT, Part, Point, Row
from ..pipeline.stored_run import Match, StoredRun
from ..pipeline.tags import (
    COMPLETE,
    FOUND_BY,
    LIVE,
    NAME,
    NAMED,
    NOTE,
    NOTED,
    PARENT,
    PREFIX,
    REPRODUCES,
    UNREAD,
    WHOLE,
    tagged,
    value,
)
from .models import log_model
from .run_data import (
    comparable,
    is_one_request,
    log,
    log_files,
    log_inputs,
    metric,
    stored,
)
from .runs import whole, whole_text
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
    """`added`, `completed`, `restored`, `deleted` (and left so), or "" if nothing was added."""
    name: str
    run_id: str
    stages: Sequence[str]
    notes: Sequence[str] = ()
    """What could not be recorded, one line each."""
    measures: Sequence[str] = ()
    """The metrics that say how good the result is, best first, with signs."""
    run: StoredRun | None = None
    """What the run holds now."""


def upsert(store: Store, row: Row, where: Match, live: Live | None = None) -> Written:
    """Write a row to its run: the one with its results, the one they join, the live or a new one.

    The lock of the store must be held. Raises what the store raises.
    """
    found = where.has or where.joins
    if live and found and live.run_id != found.run_id:
        leave(store, live, {(REPRODUCES if where.has else PARENT): found.run_id})
        live = Live(tags=live.tags)
    run, is_new, notes = _run(store, row, found, live)
    if found and found.is_deleted:
        store.client.restore_run(found.run_id)
    is_live = live is not None and bool(live.run_id)
    at = int(time.time() * 1000) if is_live else row.time
    points = _lacking(store, None if is_new else run, row)
    has_ended = run.info.status == "FINISHED" and run.info.end_time  # else somebody has ended it
    metrics = [metric(point, has_ended or at) for point in points]
    notes += [*row.notes, *row.contradicted(run.data.params)]
    params = {key: text for key, text in row.params.items() if key not in run.data.params}
    tags = {} if is_new else _tags(store, row, run, live, is_joined=where.has is None)
    name = tags.get(NAME, run.info.run_name or "")
    # What was not made live goes with the last tags, if one request can have it.
    if not (is_new and is_one_request(metrics, params)):
        log(store, run.info.run_id, metrics, params, tags)
        metrics, params, tags = [], {}, {}
    unserved, more = _log_parts(store, run, row.parts)
    notes += more
    if is_live or (run.info.end_time and run.info.status != "FINISHED"):  # such as KILLED
        store.client.set_terminated(run.info.run_id, end_time=at)
    elif run.info.status != "FINISHED":  # nobody knows how long it took
        store.client.update_run(run.info.run_id, "FINISHED")
    had = found or StoredRun(run.info.run_id, {}, {})
    now = _now(row, had, unserved)
    last = {**tags, **_last_tags(row, run, now)}
    log(store, run.info.run_id, metrics, params, last)
    return Written(
        verb=_verb(row, where, points, unserved),
        name=name,
        run_id=run.info.run_id,
        stages=_new(row, where),
        notes=notes,
        measures=row.measures,
        run=replace(now, name=name),
    )


def planned(store: Store, row: Row, where: Match) -> Written:
    """Return what `upsert` would do for a row; nothing is written."""
    found = where.has or where.joins
    run = store.client.get_run(found.run_id) if found and row.points else None
    points = _lacking(store, run, row)
    unserved = frozenset[str]().union(*(part.unserved for part in row.parts.values()))
    run_id, name = (found.run_id, found.name) if found else ("", row.name)
    return Written(_verb(row, where, points, unserved), name, run_id, _new(row, where))


def _lacking(store: Store, run: Run | None, row: Row) -> list[Point]:
    """Return the points that a run lacks, if there is one already."""
    sent = stored(store, run) if run and row.points else frozenset()
    return [point for point in row.points if comparable(point) not in sent]


def _new(row: Row, where: Match) -> list[str]:
    """Return the stages whose results a run lacks."""
    return [n for n in row.wanted.digests if not (where.joins and n in where.joins.complete)]


def _verb(row: Row, where: Match, points: Sequence[object], unserved: frozenset[str]) -> str:
    if where.has is None:
        return "completed" if where.joins else "added"
    if where.has.is_deleted:
        return "restored"
    # A row of an older version does not say what it shows: only points tell that it was less.
    is_more = where.has.format and not row.wanted.declared - unserved <= where.has.declared
    return "completed" if points or is_more else ""


def _run(
    store: Store, row: Row, found: StoredRun | None, live: Live | None
) -> tuple[Run, bool, list[str]]:
    """Return the run that gets a row, whether it is new, and notes."""
    notes: list[str] = []
    run_id = found.run_id if found else live.run_id if live else ""
    if run_id:
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
    given = {**processes.tags(store.root), **tags, NAMED: name, **noted(note)}
    run = store.client.create_run(store.experiment_id, start, given, name)
    if not run.info.run_id:  # the client accepts any JSON
        raise MlflowException("the server's answer has no run")
    return run


def noted(note: str) -> dict[str, str]:
    """Return the tags of a description that is the tool's."""
    return {NOTE: note, NOTED: note_digest(note)}


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
    has, tags, is_more = run.data.tags, dict(row.tags), is_joined
    had = whole(value(has, WHOLE))
    if had is None or row.wanted.standing.is_better(had[1]):
        tags |= row.origin
        is_more = True
    if live:
        tags |= live.tags
    if is_joined:  # until it is complete, nobody else takes it for what a dead process has left
        tags |= processes.tags(store.root)
    tags |= row.part_tags
    if is_more and run.info.run_name in (has.get(NAMED), live.name if live else None):
        tags |= {NAME: row.name, NAMED: row.name}
    note = has.get(NOTE, "")
    if is_more and (start := _own_start(note, has.get(NOTED, ""))) is not None:
        tags |= {**noted(row.note), NOTE: row.note + note[start:]}
    return {key: text for key, text in tags.items() if has.get(key) != text}


def _own_start(note: str, digest: str) -> int | None:
    """Return where a person's words begin after the tool's own; None if these have been changed."""
    ends = [len(note), *(found.start() for found in re.finditer("\n\n", note))]
    return next((end for end in ends if not note or note_digest(note[:end]) == digest), None)


def _now(row: Row, had: StoredRun, unserved: frozenset[str]) -> StoredRun:
    """Return what a run holds once it has a row."""
    wanted, unread = row.wanted, "; ".join(row.unread)[:_LONGEST_TAG]
    is_better = wanted.standing.is_better(had.standing)
    return replace(
        had,
        begun={**had.begun, **wanted.digests},
        complete={**had.complete, **wanted.digests},
        is_deleted=False,
        is_open=False,
        format=FORMAT,
        standing=wanted.standing if is_better else had.standing,
        declared=(wanted.declared - unserved) | had.declared,
        unread=unread if row.parts else had.unread,
        prefixes={**dict.fromkeys(row.parts), **had.prefixes, **tagged(row.part_tags, PREFIX)},
    )


def _last_tags(row: Row, run: Run, now: StoredRun) -> dict[str, str]:
    """Return the tags that say what a run has, which are written last."""
    tags = run.data.tags
    digits = dict.fromkeys([*tags.get(FOUND_BY, "").split(), *row.digits])
    last = {f"{COMPLETE}{name}": digest for name, digest in row.wanted.digests.items()}
    last[FOUND_BY] = " ".join(digits)[-_LONGEST_TAG:]
    if now.unread != tags.get(UNREAD, ""):
        last[UNREAD] = now.unread
    last[LIVE] = ""
    last[WHOLE] = whole_text(FORMAT, now.standing, now.declared)
    return {key: text for key, text in last.items() if tags.get(key, "") != text}


def note_digest(text: str) -> str:
    """Return a digest of a description, by which the tool knows its own again."""
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()[:8]


def _log_parts(
    store: Store, run: Run, parts: Mapping[str, Part]
) -> tuple[frozenset[str], list[str]]:
    """Log data sets, files and models; return which models cannot be served, and notes."""
    unserved, notes = set[str](), []
    log_inputs(store, run, [each for part in parts.values() for each in part.inputs])
    notes += log_files(store, run, {p: b for part in parts.values() for p, b in part.files.items()})
    for part in parts.values():
        unserved |= part.unserved
        for model in part.models:
            try:
                log_model(store, run, model)
            except ModelError as error:
                unserved.add(model.declaration)
                notes.append(f"model {model.path}: {error}")
        notes += [*part.notes, *part.notes_unread()]
    return frozenset(unserved), notes


def leave(store: Store, live: Live, tags: Mapping[str, str]) -> None:
    """Delete the run of a stage whose result is in another, or tag it if a script has used it."""
    if not live.run_id:
        return
    store.client.set_terminated(live.run_id)
    if live.is_used:
        log(store, live.run_id, tags=tags)
    else:
        store.client.delete_run(live.run_id)
