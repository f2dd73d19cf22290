"""The rows of the table: a training opens a run, and an evaluation is added to one."""

import math
import os
import re
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from traceback import format_exception_only

from .store import MODEL_MD5, Store  # before MLflow, which it sets up

# isort: split
import mlflow
from mlflow.entities import Metric, Run

from dvc_mlflow.faults import ERRORS, store_error

from ..run.errors import FileError, StageError
from ..run.files import AnyPath, md5
from ..run.params import flatten, updated
from ..run.stage import Stage
from .files import Data, Serve, log_model, packed, renew_model
from .kept import log_files
from .runs import (
    TRAIN,
    TRAIN_DATA_MD5,
    Params,
    context,
    copy,
    create,
    data_md5,
    evaluations,
    inherit,
    params_text,
    unrecorded,
)

REPRODUCED = "reproduced"

_SEND_SECONDS = 0.5  # between batches of metrics: each costs a transaction or a request
_SEND_AT_MOST, _COMPLETE_AT_MOST = 15, 600  # seconds; a model can have a few GB


class Row:
    """The row of a training while it runs.

    If the store fails, unsent metrics are kept and retried once after training: a training is worth
    more than its record.
    """

    def __init__(self, store: Store, stage: Stage, run_id: str) -> None:
        self.run_id = run_id
        self._store = store
        self._stage = stage
        self._unsent: list[Metric] = []
        self._sent = time.monotonic()
        self._store_works = True

    def log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        """Add points to the row's curves; raises if the stage must stop (`Stage.check`)."""
        self._stage.check()
        now = int(time.time() * 1000)
        self._unsent += [Metric(key, value, now, step) for key, value in metrics.items()]
        if self._store_works and time.monotonic() - self._sent > _SEND_SECONDS:
            try:
                self.send()
            except ERRORS:
                self._store_works = False

    def send(self) -> None:
        """Send the metrics that the store does not have yet."""
        with self._store.within(_SEND_AT_MOST):
            self._store.client.log_batch(self.run_id, metrics=self._unsent)
        self._unsent.clear()
        self._sent = time.monotonic()


@contextmanager
def training(
    store: Store,
    stage: Stage,
    model: AnyPath,
    data: Data,
    *,
    params: Params,
    serve: Serve | None = None,
    texts: Mapping[str, str] = {},
    files: Sequence[AnyPath] = (),
) -> Iterator[Row]:
    """Open a row for the training in the block, and complete it with `model` when the block ends.

    `texts` are artifacts by file name; without `serve`, or if it fails, so is the model. `files`
    are other files that the block writes. If the block fails, the row is FAILED; if the stage is
    stopped, the row is KILLED. If the store already has this model with these params, no row is
    added: the tag `reproduced` of the first row goes up by one.
    """
    model = Path(model)
    with stage.stoppable(), _ending_rows(store, stage):
        # Locked: two stages that log the same new data set at once would collide.
        with store.lock(), store.errors_reported():
            given = data.as_input(context(TRAIN))
            tags = {TRAIN_DATA_MD5: given.dataset.digest}
            run_id = create(store, params, tags, texts, [given])
            log_files(store, run_id, [data.path], TRAIN)
        row = Row(store, stage, run_id)
        yield row
        stage.check()
        if not model.exists():
            raise FileError(model, "was not written by the training", "write it within the block")
        with packed(model, serve) as package:
            try:
                with store.lock(), store.within(_COMPLETE_AT_MOST):
                    row.send()
                    _complete_training(store, run_id, model, package, files)
            except ERRORS as error:
                again = f"dvc repro -f --downstream {os.environ.get('DVC_STAGE', '<stage>')}"
                cure = f"the training is kept but not recorded; run `{again}` to record it"
                print(f"warning: {store_error(store.address, error, cure)}", file=sys.stderr)
                store.end_own_rows("FAILED", "the training is kept but not recorded")


def evaluation(
    store: Store,
    stage: Stage,
    model: AnyPath,
    data: Data,
    *,
    params: Params,
    metrics: Mapping[str, float],
    name: str = "test",
    serve: Serve | None = None,
    texts: Mapping[str, str] = {},
    files: Sequence[AnyPath] = (),
) -> str:
    """Record the evaluation of `model` on `data`; return the id of the run that holds it.

    `name` is the split's: a row has one result per split, and `metrics` get it as a prefix.
    `files` are those that the evaluation wrote. Raises `TrackingError`.
    """
    if not isinstance(model, str | os.PathLike):
        raise StageError("an evaluation has one model: record one for each")
    if name == TRAIN or not re.fullmatch(r"[\w-]+", name):
        rule = f"one word other than `{TRAIN}`, which the training uses"
        raise StageError(f"evaluation: name must be {rule}; received {name!r}")
    model, client, tag = Path(model), store.client, data_md5(name)
    tested_on = data.as_input(context(name))
    model_md5, digest = md5(model), tested_on.dataset.digest
    metrics = {f"{name}/{key}": value for key, value in metrics.items()}
    flat = {key: str(value) for key, value in flatten(params).items()}
    with store.errors_reported():
        known = store.results_of(model_md5)
    with (
        stage.stoppable(),
        packed(model, None if known else serve) as package,
        store.lock(),
        store.errors_reported(),
        _ending_rows(store, stage),
    ):
        runs = store.results_of(model_md5)
        here = [run for run in runs if _has_result(run, tag, digest, metrics)]
        free = [run for run in runs if _takes(run, tag, flat)]
        if here and (_trained(here[0]) or not free):  # already recorded
            return str(here[0].info.run_id)
        if free:  # the row of the training
            run_id = free[0].info.run_id
        elif runs:  # the model has results on other test sets, or other metrics
            run_id = copy(store, runs[0], model, params, name)
        else:
            run_id = unrecorded(store, model, model_md5, params, package)

        client.log_text(run_id, updated(params_text(store, run_id), params), store.params.name)
        for file, text in texts.items():
            client.log_text(run_id, text, file)
        log_files(store, run_id, [data.path, *files], name)
        store.log_inputs(run_id, [tested_on])
        # Given a run_id, MLflow starts no run and links the metrics to that run's model.
        mlflow.log_metrics(metrics, run_id=run_id, dataset=tested_on.dataset)
        mlflow.log_params(flat, run_id=run_id)
        client.set_tag(run_id, tag, digest)  # last: it says that the row is complete
        result = client.get_run(run_id)
        for run in free[1:]:  # trainings with other params that made the same model
            inherit(store, run.info.run_id, result, flat)
        for run in here:  # the same result without its training
            if {*evaluations(result)}.issuperset(evaluations(run)):
                client.delete_run(run.info.run_id)
    return str(run_id)


@contextmanager
def _ending_rows(store: Store, stage: Stage) -> Iterator[None]:
    """Leave no row of this process RUNNING if the block fails or is stopped; say why it failed."""
    try:
        yield
    except BaseException as error:
        why = "" if stage.stopped else format_exception_only(error)[-1]
        store.end_own_rows("KILLED" if stage.stopped else "FAILED", why)
        raise


def _complete_training(
    store: Store, run_id: str, model: Path, package: Path | None, files: Sequence[AnyPath]
) -> None:
    client, model_md5 = store.client, md5(model)
    params = client.get_run(run_id).data.params
    runs = [run for run in store.results_of(model_md5) if _trained(run)]
    if known := [run for run in runs if params.items() <= run.data.params.items()]:
        first, count = known[-1], known[-1].data.tags.get(REPRODUCED, "")
        if package:
            renew_model(store, first.info.run_id, model, package)
        count = str(int(count) + 1) if count.isdecimal() else "1"
        client.set_tag(first.info.run_id, REPRODUCED, count)
        client.set_terminated(run_id)
        client.delete_run(run_id)
        return
    log_model(store, run_id, model, package)
    log_files(store, run_id, [model, *files], TRAIN)
    client.set_tag(run_id, MODEL_MD5, model_md5)
    # DVC takes an evaluation of the same bytes from its cache, so no stage would record it.
    for run in [run for run in runs if evaluations(run)][:1]:
        inherit(store, run_id, run, run.data.params)
    client.set_terminated(run_id)


def _trained(run: Run) -> bool:
    """Whether a row's training was recorded in this store."""
    return TRAIN_DATA_MD5 in run.data.tags


def _has_result(run: Run, tag: str, digest: str, metrics: Mapping[str, float]) -> bool:
    """Whether a row has this result; a corrected evaluation of the same data is another one."""
    had = {key: _comparable(value) for key, value in run.data.metrics.items()}
    new = {key: _comparable(value) for key, value in metrics.items()}
    return run.data.tags.get(tag) == digest and new.items() <= had.items()


def _comparable(value: float) -> object:
    """Return a value that is equal for equal metrics: NaN never is, and stores keep no infinity."""
    greatest = sys.float_info.max
    return "NaN" if math.isnan(value) else max(-greatest, min(greatest, value))


def _takes(run: Run, tag: str, params: Mapping[str, str]) -> bool:
    """Whether a row has no such result and no conflicting params from a killed evaluation."""
    had = run.data.params
    return tag not in run.data.tags and all(
        had.get(key, value) == value for key, value in params.items()
    )
