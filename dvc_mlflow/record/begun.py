"""The runs that a follower, or a stage's script, has begun: which of them becomes a result's row.

A follower opens a run while a stage runs, and knows no result. Whoever records the result, that
follower or anybody later, lets the run be its row.
"""

import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from mlflow.entities import Run

from .. import processes
from ..pipeline.row import Row
from ..pipeline.row_stages import live_key
from ..pipeline.run_context import Token
from ..pipeline.stages import Stage
from ..pipeline.tags import CLONE, LIVE, PARENT, TOKEN
from ..place import project_root
from ..project.rwlock import held_by
from ..rows.result import Result
from ..store.run_data import comparable, stored
from ..store.store import Store
from ..store.upsert import Begun

_OF_THE_MACHINE = "system/"
"""How the keys of MLflow's system metrics begin."""
_CLOCKS = 1000  # ms by which the start of a stage and the time of its result can be told apart


def begun_for(
    store: Store, result: Result, row: Row, has: str, ended: Mapping[str, Sequence[str]]
) -> Begun | None:
    """Return the run that was begun for a result, if there is one; raises what the store raises.

    That is the one that `has` some of it already, by its id, or one of this clone for the same
    stages, which began before the result was there, whose params do not contradict it, and whose
    stage has ended: `ended` says so of a run, with the inputs that were written meanwhile, or its
    `dvc` has ended, or that holds none of the stage's files.
    """
    key, clone = live_key(result.pipeline.folder, result.row_stages), processes.clone(store.root)
    runs = [*store.runs(f"tags.`{LIVE}` = '{key}' and tags.`{CLONE}` = '{clone or '-'}'")]
    runs.sort(key=lambda run: (run.info.run_id != has, run.info.run_id not in ended))
    for run in runs:
        run_id, held = run.info.run_id, _held(result, run)
        has_let_go = held is not None and not _writes(held, result, result.scope())
        if not (has_let_go or run_id in ended) or (run.info.start_time or 0) > row.time + _CLOCKS:
            continue
        others = [s for s in result.row_stages.scope() if s not in result.scope()]
        goes_on = bool(held) and _writes(held or (), result, others)
        params, used = run.data.params, bool(run.data.tags.get(TOKEN))
        changed = [name for name, text in params.items() if row.params.get(name, text) != text]
        more = params.keys() - row.params.keys()
        if run_id in ended or run_id == has or not (changed or (more and not used)):
            contradicts = not used and bool(changed or (more and not goes_on))
            is_anew = contradicts or _has_other_points(store, run, row)
            written = [*([] if used else changed), *ended.get(run_id, ())]
            return Begun(run, used, goes_on, is_anew, written)
    return None


def _held(result: Result, run: Run) -> Collection[str] | None:
    """Return the files that the `dvc` of a run holds; None if it is at work nobody knows where."""
    tags = run.data.tags
    if processes.has_ended(tags):
        return frozenset()
    pid, root = processes.id_in(tags), result.project.root
    with suppress(OSError):
        if project_root(Path(f"/proc/{pid}/cwd").readlink()) == root:
            held = held_by(root)
            return None if held is None else held.get(pid, frozenset())
    return None


def _writes(held: Collection[str], result: Result, stages: Iterable[Stage]) -> bool:
    """Whether these files are outputs of stages."""
    root = result.project.root
    outs = {os.path.normpath(root / out.path) for stage in stages for out in stage.outs}
    return not outs.isdisjoint(held)


def _has_other_points(store: Store, run: Run, row: Row) -> bool:
    """Whether a run has points that the row has not; a script's own are nobody else's."""
    points, is_used = row.points, bool(run.data.tags.get(TOKEN))
    keys, known = {point.key for point in points}, {*map(comparable, points)}
    has = (each for each in stored(store, run) if each[0] in keys or not is_used)
    return not {each for each in has if not each[0].startswith(_OF_THE_MACHINE)} <= known


def opened_by_script(
    store: Store, marks: Collection[str], address: str, since: float, until: float
) -> list[Run]:
    """Return the runs in any experiment that a stage's script has opened, the oldest first.

    `marks` are those of the processes whose scripts may be the stage's, at its `address`; the times
    are in seconds since 1970. Runs that are a row's or below another run are left out.
    """
    runs, experiments = dict[str, Run](), store.all_experiments()
    first, last = int(since * 1000) - _CLOCKS // 50, int(until * 1000)
    times = f"attributes.start_time >= {first} and attributes.start_time <= {last}"
    for mark in marks:
        query = f"tags.`{TOKEN}` LIKE '{mark} %' and {times}"
        for run in store.runs(query, experiments=experiments):
            tags = run.data.tags
            is_free = PARENT not in tags and not tags.get(CLONE)
            if is_free and Token.of(tags[TOKEN]).stage in ("", address):
                runs[run.info.run_id] = run
    return sorted(runs.values(), key=lambda run: run.info.start_time)
