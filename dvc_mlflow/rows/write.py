"""Write rows to MLflow: find the run where results go, and give it what it lacks."""

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from ..store.store import Store  # before MLflow, which it sets up

# isort: split
from ..pipeline.identity import Known
from ..pipeline.tags import CHANGE, COMPLETE, PARENT, REPRODUCES
from . import gathered
from .changes import changes
from .completion import declared, log_models, show, unshown
from .completion import tags as shown_tags
from .follow import follow, lags
from .gathered import Gathered
from .matching import Index, Searches
from .opened import Live, opened
from .result import Result
from .sending import comparable, is_one_request, log, log_files, metric
from .title import title, words


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
    is_again: bool = False
    """Whether a live stage has made what the run has already, which is still to be counted."""


def write(
    store: Store,
    result: Result,
    index: Index | None = None,
    *,
    dry: bool = False,
    undelete: bool = False,
    given: Gathered | None = None,
) -> Written:
    """Bring a result into the store, unless it is there; `dry` writes nothing.

    With what was gathered already, only models are read from the project. What is written twice
    is the same both times, so a write that was killed is completed in the same run. Raises what the
    store raises.
    """
    index = index or Searches(store)
    where = index.find(result.digests)
    if where.has is not None:
        return _revisit(store, result, where.has, dry=dry, undelete=undelete)
    if dry:
        verb, run_id = ("completed", where.joins.run_id) if where.joins else ("added", "")
        name = where.joins.name if where.joins else ""
        if not name:
            start = words(result, changes(result, [*result.digests]))
            name = title(start, result.digests, index.names(result.digests))
        return Written(verb, name, run_id, _new(result, where.joins))
    written = _fill(store, result, where.joins, index.names(result.digests), given=given)
    return _with_the_rest(store, result, written) if where.joins else written


def _new(result: Result, joins: Known | None) -> list[str]:
    """Return the members whose results a run does not have yet."""
    return [name for name in result.digests if not (joins and name in joins.complete)]


def _revisit(store: Store, result: Result, has: Known, *, dry: bool, undelete: bool) -> Written:
    """Restore a run from the trash, or add what was missing or not declared before."""
    names = [*result.digests]
    if has.is_deleted:
        if undelete and not dry:
            _undelete(store, result, has.run_id)
        return Written("restored" if undelete else "deleted", "", has.run_id, names)
    if dry:
        return Written("completed" if unshown(result, has) else "", has.name, has.run_id, names)
    if lags(result, has):
        has = follow(store, result, has)
    known, is_more, notes = show(store, result, has)
    verb = "completed" if is_more else ""
    return Written(verb, has.name, has.run_id, names, notes, known=known)


def _with_the_rest(store: Store, result: Result, written: Written) -> Written:
    """Complete what a run had before it was joined by more results, if more is declared of it."""
    if written.known is None:
        return written
    known, _, notes = show(store, result, written.known, written.stages)
    return written._replace(known=known, notes=[*written.notes, *notes])


def _undelete(store: Store, result: Result, run_id: str) -> None:
    """Restore a run from the trash, and keep its result again, as `forget` may have run."""
    store.client.restore_run(run_id)
    kept, _ = gathered.keep(result, store.root)
    log(store, run_id, tags=gathered.kept_tags(kept, result.digests))


def write_live(store: Store, result: Result, live: Live, searches: Searches) -> Written:
    """Bring a result into the store after one of its stages has run.

    The stage's own run becomes the row, unless another run has the result or it joins one. Then it
    is deleted; if the stage's script has logged to it, it stays, with a tag or as that run's child.
    """
    where = searches.find(result.digests)
    if where.has is not None:
        if where.has.is_deleted:
            _undelete(store, result, where.has.run_id)
            searches.clear()
        leave(store, live, {REPRODUCES: where.has.run_id})
        known, _, notes = show(store, result, where.has)
        if known is not where.has:
            searches.update(result.origin.time, known)
        return Written("", where.has.name, where.has.run_id, [], notes, is_again=True)
    if where.joins is not None:
        leave(store, live, {PARENT: where.joins.run_id})
        written = _with_the_rest(store, result, _fill(store, result, where.joins))
    else:
        written = _fill(store, result, None, searches.names(result.digests), live=live)
    if written.known is not None:
        searches.update(result.origin.time, written.known)
    return written


def leave(store: Store, live: Live, tags: Mapping[str, str]) -> None:
    """Delete the run of a stage whose result is in another, or tag it if a script has used it."""
    if not live.run_id:
        return
    store.client.set_terminated(live.run_id)
    if live.is_used:
        log(store, live.run_id, tags=tags)
    else:
        store.client.delete_run(live.run_id)


def _fill(
    store: Store,
    result: Result,
    joins: Known | None,
    taken: Collection[str] = (),
    *,
    live: Live | None = None,
    given: Gathered | None = None,
) -> Written:
    """Give a run what it lacks, and end it; the tags that say so are written last.

    A new row gets its name, which none of those that are `taken` is.
    """
    names = _new(result, joins)
    new = given or gathered.gather(result, names, store.root)
    content = [new.content[name] for name in names]
    points = [point for each in content for point in each.points]
    rewritten = []
    if live and not live.sent <= {*map(comparable, points)}:
        if live.is_used:  # what the script has logged would be lost with the run
            rewritten = ["a curve was written anew; the row also has points of the earlier one"]
        else:
            store.client.delete_run(live.run_id)
            live = Live(environment=live.environment)
    found = title(new.words, result.digests, taken)
    run, tags, known, called = opened(store, result, new, found, joins, live)
    run_id = run.info.run_id
    notes = [*new.notes, *new.contradicted(run.data.params), *rewritten]
    params = {key: value for key, value in new.params.items() if key not in run.data.params}
    at = int(time.time() * 1000) if live else new.time
    metrics = [metric(point, at) for point in points if comparable(point) not in known]
    # What was not made live goes with the last tags, if one request can have it.
    if live or tags or not is_one_request(metrics, params):
        log(store, run_id, metrics, params, tags)
        metrics, params = [], {}
    notes += log_files(store, run, content, new.sources)
    unserved, complete = frozenset[str](), {}
    for name in names:
        not_here, reasons = log_models(store, result, run, [name])
        unserved |= not_here
        notes += [*new.content[name].notes, *reasons, *new.content[name].notes_lacking()]
        if not new.content[name].lacking:
            complete[name] = result.digests[name]
    if run.info.status != "FINISHED" or live:
        store.client.set_terminated(run_id, end_time=at)
    own = {name: every - unserved for name, every in declared(result).items() if name in complete}
    tags = {f"{COMPLETE}{name}": digest for name, digest in complete.items()}
    log(store, run_id, metrics, params, {**shown_tags(own), **tags})
    verb = ("completed" if complete else "") if joins else "added"
    had = joins or Known(run_id, {}, {}, change=new.origin.get(CHANGE, ""))
    has_now = replace(
        had,
        begun={**had.begun, **result.digests},
        complete={**had.complete, **complete},
        shown={**had.shown, **own},
        name=called,
    )
    return Written(verb, called, run_id, names, notes, new.columns, has_now)
