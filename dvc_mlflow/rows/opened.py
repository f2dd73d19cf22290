"""The run that becomes a row: the one that it joins, the stage's own, or a new one."""

from collections.abc import Mapping
from typing import NamedTuple

from ..store.store import Store  # before MLflow, which it sets up

# isort: split
from mlflow.entities import Run

from ..pipeline.identity import Known
from ..pipeline.tags import NAME, NOTE
from . import gathered
from .description import description
from .gathered import Gathered
from .result import Result
from .sending import sent


class Live(NamedTuple):
    """The run of a stage that has just ended, if it opened one."""

    run_id: str = ""
    name: str = ""
    """The name that the tool has given to it, with digits that are of no result."""
    note: str = ""
    """The same of its description."""
    artifact_uri: str = ""
    sent: frozenset[tuple[str, str, int]] = frozenset()
    """The points that it has."""
    is_used: bool = False
    """Whether the stage's script has logged to it."""
    environment: Mapping[str, str] = {}
    """The tags that say what ran the code, if it has opened none."""


class Opened(NamedTuple):
    """The run that becomes a row."""

    run: Run
    tags: Mapping[str, str]
    """Those that it lacks."""
    sent: frozenset[tuple[str, str, int]]
    """The points that it has."""
    name: str


def opened(
    store: Store,
    result: Result,
    new: Gathered,
    name: str,
    joins: Known | None,
    live: Live | None,
) -> Opened:
    """Return the run that gets it: the one that it joins, the stage's own, or a new one."""
    tags = {**new.begun, **gathered.kept_tags(new.kept, [*new.content])}
    for content in new.content.values():
        tags |= content.tags
    run_id = joins.run_id if joins else live.run_id if live else ""
    if not run_id:
        note = description(new.origin, result.lineage, name)
        tags |= {**new.origin, **(live.environment if live else {}), NOTE: note}
        run = store.create_run(new.time, tags, name)
        return Opened(run, {}, frozenset(), name)
    run = store.client.get_run(run_id)
    if live and run.info.run_name == live.name:  # else a person or a script has named it
        tags[NAME] = name
    name = tags.get(NAME, run.info.run_name)
    if live and run.data.tags.get(NOTE, "") == live.note:
        tags[NOTE] = description(new.origin, result.lineage, name)
    tags = {key: value for key, value in tags.items() if run.data.tags.get(key) != value}
    was_killed = joins is not None and joins.begun.keys() > joins.complete.keys()
    has = live.sent if live else sent(store, run) if was_killed else frozenset()
    return Opened(run, tags, has, name)
