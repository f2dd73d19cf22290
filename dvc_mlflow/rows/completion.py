"""What a run shows of its result: metrics, plots and models can be declared later than it."""

import time
from collections.abc import Collection, Mapping
from dataclasses import replace

from ..store.store import Store  # before MLflow, which it sets up

# isort: split
from mlflow.entities import Run

from ..pipeline.declarations import shown, shown_model
from ..pipeline.identity import Known
from ..pipeline.tags import PREFIX, SHOWN, tagged
from . import logged_models
from .content import Content, content_of
from .logged_models import UnservableModelError
from .result import Result
from .sending import comparable, log, log_files, metric, sent

Shown = Mapping[str, frozenset[str]]
"""By member, what is declared of it, as short digests."""


def declared(result: Result) -> Shown:
    """Return what is declared of each member that has a result."""
    parts = result.lineage.parts
    return {name: shown(result.pipeline, parts[name]) for name in result.digests}


def unshown(result: Result, has: Known) -> Shown:
    """Return what is declared of the members that a run has, where it lacks some of that."""
    return {
        name: own
        for name, own in declared(result).items()
        if name in has.complete and not own <= has.shown.get(name, frozenset())
    }


def show(
    store: Store, result: Result, has: Known, but: Collection[str] = ()
) -> tuple[Known, bool, list[str]]:
    """Add what a run lacks; return what it has now, whether that is more, and notes.

    The members `but` were just written. The keys of metrics keep the prefix that they have.
    """
    lacking = {name: own for name, own in unshown(result, has).items() if name not in but}
    if not lacking:
        return has, False, []
    run = store.client.get_run(has.run_id)
    unserved, notes = log_models(store, result, run, lacking)
    shown_now = {name: own - unserved for name, own in lacking.items()}
    content = {name: content_of(_as_shown(result, run), name) for name in lacking}
    there, at = sent(store, run), run.info.end_time or int(time.time() * 1000)
    points = [p for c in content.values() for p in c.points if comparable(p) not in there]
    log(store, has.run_id, [metric(point, at) for point in points])
    notes += log_files(store, run, [Content(files=each.files) for each in content.values()], {})
    now = dict(has.shown)
    for name, each in content.items():
        notes += [*each.notes, *each.notes_lacking()]
        if not each.lacking:
            now[name] = now.get(name, frozenset()) | shown_now[name]
    log(store, has.run_id, tags=tags({name: now[name] for name in lacking if name in now}))
    # A run of an older version does not say what it shows: only points tell that it was less.
    is_more = bool(points) or any(now.get(n) != has.shown.get(n) for n in lacking if n in has.shown)
    return replace(has, shown=now), is_more, notes


def log_models(
    store: Store, result: Result, run: Run, names: Collection[str]
) -> tuple[frozenset[str], list[str]]:
    """Link a run to the models of these members; return which cannot be served, and why.

    They are named by the digests of their declarations.
    """
    unserved, notes = set(), []
    for _, model, output in result.models(names):
        try:
            logged_models.log(store, result.project, run.info.run_id, model, output)
        except UnservableModelError as error:
            unserved.add(shown_model(model))
            notes.append(f"model {model.path}: {error}")
    return frozenset(unserved), notes


def tags(own: Shown) -> dict[str, str]:
    """Return the tags that say what a run shows."""
    return {f"{SHOWN}{name}": " ".join(sorted(digests)) for name, digests in own.items() if digests}


def _as_shown(result: Result, run: Run) -> Result:
    """Return a result with the prefixes that a run has; one of an older version has today's."""
    names = result.digests.keys()
    defaults = dict.fromkeys(names & tagged(run.data.tags, SHOWN).keys())
    given = {n: p for n, p in tagged(run.data.tags, PREFIX).items() if n in names}
    return result.with_prefixes({**defaults, **given})
