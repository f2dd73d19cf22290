"""The row of a stage that has just begun: what DVC and git know of it already."""

from collections.abc import Mapping
from typing import Protocol

from mlflow.entities import Run
from mlflow.environment_variables import MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING

from ..pipeline.row import DIGITS, RowKey
from ..pipeline.stages import Stage
from ..pipeline.tags import NAME, NAMED, NOTE, SCRIPT_NAME
from ..rows.content import params_of
from ..rows.description import description
from ..rows.name import words
from ..rows.result import Result
from ..rows.row_of import origin_tags
from ..store.run_data import log
from ..store.runs import is_random_name
from ..store.store import Store
from ..store.upsert import Live, new_run, noted


def open_run(
    store: Store, result: Result, stage: Stage, digits: str, environment: Mapping[str, str]
) -> Live:
    """Open a run for a row of which this stage begins; `digits` end its name."""
    tags, name, note = _head(result, stage, digits, environment)
    run = new_run(store, result.origin.time, tags, name, note)
    log_known(store, run, result, stage)
    store.show()
    return Live(run.info.run_id, name)


def take_run(
    store: Store,
    run: Run,
    result: Result,
    stage: Stage,
    digits: str,
    environment: Mapping[str, str],
) -> Live:
    """Let the run that a stage's script has opened be its row.

    It has the name of a row, as a script can give all its runs the same one. It gets the params
    when the stage has ended: the script may log them in its own way, and MLflow would refuse
    another value.
    """
    tags, name, note = _head(result, stage, digits, environment)
    own, given = run.data.tags, run.info.run_name
    more = {NAME: name, NAMED: name}
    if given and not is_random_name(given):
        more[SCRIPT_NAME] = given
    if not own.get(NOTE):
        more |= noted(note)
    log(store, run.info.run_id, tags={**tags, **more})
    store.show()
    return Live(run.info.run_id, name, is_used=True)


def _head(
    result: Result, stage: Stage, digits: str, environment: Mapping[str, str]
) -> tuple[dict[str, str], str, str]:
    """Return tags, name and description of a row that this stage begins."""
    tags = {**origin_tags(result.state, stage), **environment}
    name = f"{words(result, _names(result, stage))} {digits[:DIGITS]}".strip()
    return tags, name, description(tags, result.row_stages)


def log_known(store: Store, run: Run, result: Result, stage: Stage) -> None:
    """Log the params of a stage of a row, as far as its run lacks them.

    Which data it reads is known when it has ended: dvc.lock has what its last result has read.
    """
    params = _params(result, stage)
    log(
        store, run.info.run_id, params={k: v for k, v in params.items() if k not in run.data.params}
    )


def _params(result: Result, stage: Stage) -> dict[str, str]:
    if names := _names(result, stage):
        return params_of(result, names)[0]
    return params_of(result, [*result.row_stages.members], only=stage)[0]


def _names(result: Result, stage: Stage) -> list[RowKey]:
    """Return what a stage is called in its row; nothing if it is only upstream of it."""
    members = result.row_stages.members.items()
    return [name for name, member in members if member.name == stage.name]


class Monitor(Protocol):
    """What logs to a run until it is told to finish."""

    def start(self) -> None:
        """Log in a thread of its own."""

    def finish(self) -> None:
        """Stop, and log what is left."""


def monitor(run_id: str) -> Monitor | None:
    """Start to log the machine's use to a run, if the environment asks for it."""
    if not MLFLOW_ENABLE_SYSTEM_METRICS_LOGGING.get():
        return None
    from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor  # seldom needed

    started: Monitor = SystemMetricsMonitor(run_id)
    started.start()
    return started
