"""The row of a stage that has just begun: what DVC and git know of it already."""

from collections.abc import Mapping

from ..store.store import Store  # before MLflow, which it sets up

# isort: split
from mlflow.entities import Run

from ..pipeline.tags import NOTE
from ..rows.changes import changes
from ..rows.content import inputs_of, params_of
from ..rows.description import description
from ..rows.gathered import origin_tags, source
from ..rows.opened import Live
from ..rows.result import Result
from ..rows.sending import log, log_inputs
from ..rows.shown import shown
from ..rows.title import named, words


def open_run(
    store: Store, result: Result, name: str, digits: str, environment: Mapping[str, str]
) -> Live:
    """Open a run for this member of a row, which has no result yet; `digits` end its name."""
    found, stage = changes(result, [name]), result.lineage.members[name]
    tags = {**origin_tags(result.state, stage, store.root), **environment}
    called, note = named(words(result, found), digits), description(tags, result.lineage)
    began = result.origin.time
    run = store.create_run(began, {**tags, NOTE: note}, called)
    if stage.settings.open != "first":  # its script may log the params in its own way
        log_known(store, run, result, name)
    store.show(shown(result, found, params_of(result, [name])[0], {}))
    return Live(run.info.run_id, called, note, run.info.artifact_uri)


def log_known(store: Store, run: Run, result: Result, name: str) -> None:
    """Log the params and data sets of this member of a row, as far as its run lacks them."""
    params, _ = params_of(result, [name])
    lacking = {key: value for key, value in params.items() if key not in run.data.params}
    log(store, run.info.run_id, params=lacking)
    inputs = inputs_of(result, name)
    log_inputs(store, run, {each: source(result.project, each) for each in inputs})
