"""The row of a stage that has just begun: what DVC and git know of it already."""

from collections.abc import Mapping

from ..store.store import Store  # before MLflow, which it sets up

# isort: split
from mlflow.entities import Run

from ..rows.changes import changes
from ..rows.content import inputs_of, params_of
from ..rows.description import description
from ..rows.result import Result
from ..rows.row_of import origin_tags
from ..rows.shown import shown
from ..rows.title import words
from ..store.sending import log, log_inputs
from ..store.upsert import Live, new_run


def open_run(
    store: Store, result: Result, name: str, digits: str, environment: Mapping[str, str]
) -> Live:
    """Open a run for this member of a row, which has no result yet; `digits` end its name."""
    found, stage = changes(result, [name]), result.lineage.members[name]
    tags = {**origin_tags(result.state, stage), **environment}
    name_, note = f"{words(result, found)} {digits[:7]}".strip(), description(tags, result.lineage)
    run = new_run(store, result.origin.time, tags, name_, note)
    if stage.settings.open != "first":  # its script may log the params in its own way
        log_known(store, run, result, name)
    store.show(shown(result, found, params_of(result, [name])[0], {}))
    return Live(run.info.run_id)


def log_known(store: Store, run: Run, result: Result, name: str) -> None:
    """Log the params and data sets of this member of a row, as far as its run lacks them."""
    params, _ = params_of(result, [name])
    lacking = {key: value for key, value in params.items() if key not in run.data.params}
    log(store, run.info.run_id, params=lacking)
    log_inputs(store, run, inputs_of(result, name))
