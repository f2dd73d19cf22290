"""What is recorded in MLflow, and in which row: a row is a result, one model on one test set.

No run id is kept in any file: evaluate finds the run of its model by the md5 of data/model.keras,
the same that DVC writes in dvc.lock. What is recorded where is in CONTRIBUTING.md, "Tracking".
"""

import json
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from vanilla_lstm.store import FAULTS, Store  # before MLflow, which it sets up

# isort: split
import mlflow
from mlflow import entities
from mlflow.entities import Metric, Run
from mlflow.models import Model

from vanilla_lstm.artifacts import MODEL, TEST_DATA, TRAIN_DATA, DataSet
from vanilla_lstm.evaluation import Epoch, Evaluation
from vanilla_lstm.params import PARAMS, Section, flatten, parse_params, with_sections
from vanilla_lstm.stage import md5, uninterrupted

_SUMMARY = "model_summary.txt"
_NOTE = "mlflow.note.content"
_CURVES = {
    "train/loss": "loss",
    "train/accuracy": "accuracy",
    "val/loss": "val_loss",
    "val/accuracy": "val_accuracy",
}


class TrainingRun:
    """The row of a training while it runs.

    Once the store fails, what it misses is kept until the training has ended, and then tried once
    more: a training is worth more than its record.
    """

    def __init__(self, store: Store, run_id: str) -> None:
        self._store = store
        self.run_id = run_id
        self._n_epochs = 0
        self._unsent: list[Metric] = []
        self._store_is_well = True

    def log_epochs(self, epochs: Sequence[Epoch]) -> None:
        """Add the measures of epochs to the row's curves."""
        now = int(time.time() * 1000)
        for epoch in epochs:
            self._n_epochs += 1
            for key, field in _CURVES.items():
                self._unsent.append(Metric(key, getattr(epoch, field), now, self._n_epochs))
        if self._store_is_well:
            try:
                self._send()
            except FAULTS:
                self._store_is_well = False

    def finish(self, output_shape: Sequence[int | None]) -> None:
        """Complete the row with the model that was made, data/model.keras.

        If the store had that model before, nothing new was made: the row is dropped, and the tag
        `reproduced` of the older one counts one more.
        """
        client, model_md5 = self._store.client, md5(MODEL)
        try:
            self._send()
            with self._store.lock(), uninterrupted():
                known = [run for run in self._store.results_of(model_md5) if _trained(run)]
                if known:
                    count = int(known[-1].data.tags.get("reproduced", 0)) + 1
                    client.set_tag(known[-1].info.run_id, "reproduced", str(count))
                    client.set_terminated(self.run_id)
                    client.delete_run(self.run_id)
                else:
                    _log_model(self._store, self.run_id, output_shape)
                    client.set_tag(self.run_id, "model.md5", model_md5)
                    client.set_terminated(self.run_id)
        except FAULTS as error:
            cure = "the training is kept but not recorded: `dvc repro -f -s train evaluate` does it"
            print(f"warning: {self._store.fault(error, cure)}", file=sys.stderr)

    def _send(self) -> None:
        with uninterrupted():
            self._store.client.log_batch(self.run_id, metrics=self._unsent)
            self._unsent.clear()


@contextmanager
def training_run(
    store: Store, sections: dict[str, Section], params_text: str, dataset: DataSet, summary: str
) -> Iterator[TrainingRun]:
    """Open a row for a training with data/train.npz; should the block fail, so does the row."""
    with store.ending_rows():
        # Locked, as two that log the same data set for the first time get in each other's way.
        with store.faults_told(), store.lock(), uninterrupted():
            run_id = store.create_run(
                params_text,
                flatten({**dataset.sections, **sections}),
                {"train_data.md5": md5(TRAIN_DATA)},
                {str(PARAMS): with_sections(params_text, dataset.sections), _SUMMARY: summary},
                [_dataset_input(TRAIN_DATA, dataset, "training")],
            )
        yield TrainingRun(store, run_id)


def record_evaluation(
    store: Store,
    evaluation: Evaluation,
    *,
    dataset: DataSet,
    sections: dict[str, Section],
    params_text: str,
    summary: str,
    output_shape: Sequence[int | None],
    confusion_matrix: str,
) -> str:
    """Add what data/model.keras is worth on data/test.npz to their row; return its run id."""
    client, model_md5, data_md5 = store.client, md5(MODEL), md5(TEST_DATA)
    with store.faults_told(), store.lock(), uninterrupted(), store.ending_rows():
        made_with = {dataset.own.name: dataset.own, **sections}
        params = {key: str(value) for key, value in flatten(made_with).items()}
        runs = store.results_of(model_md5)
        here = [run for run in runs if run.data.tags.get("test_data.md5") == data_md5]
        free = [run for run in runs if _takes(run, params)]
        if here and (_trained(here[0]) or not free):  # the result is there
            return str(here[0].info.run_id)
        if free:  # the row of the training
            run_id = free[0].info.run_id
        elif runs:  # the model is known on other test sets
            run_id = _copy(store, runs[0], params_text)
        else:
            run_id = _unrecorded(store, model_md5, params_text, summary, output_shape)

        text = mlflow.artifacts.load_text(f"runs:/{run_id}/{PARAMS}")
        client.log_text(run_id, with_sections(text, made_with), str(PARAMS))
        client.log_text(run_id, confusion_matrix, "confusion_matrix.svg")
        tested_on = _dataset_input(TEST_DATA, dataset, "testing")
        client.log_inputs(run_id, [tested_on])
        metrics = {f"test/{name}": value for name, value in evaluation._asdict().items()}
        # With a run_id MLflow starts no run, and links the metrics to that run's model.
        mlflow.log_metrics(metrics, run_id=run_id, dataset=tested_on.dataset)
        mlflow.log_params(params, run_id=run_id)
        client.set_tag(run_id, "test_data.md5", data_md5)  # last: it says that the row is complete
        for run in here:  # the same result, without its training
            client.delete_run(run.info.run_id)
    return str(run_id)


def _copy(store: Store, run: Run, params_text: str) -> str:
    """Make a row for a known model's result on another test set, beside the one there is."""
    params, tags = run.data.params.items(), run.data.tags.items()
    run_id = store.create_run(
        params_text,
        {k: v for k, v in params if not k.startswith(("test_data.", "evaluate."))},
        {k: v for k, v in tags if k in ("model.md5", "train_data.md5", _NOTE)},
        {
            name: mlflow.artifacts.load_text(f"runs:/{run.info.run_id}/{name}")
            for name in (str(PARAMS), _SUMMARY)
        },
        [i for i in run.inputs.dataset_inputs if i.tags[0].value == "training"],
    )
    last_epoch = {k: v for k, v in run.data.metrics.items() if k in _CURVES}
    mlflow.log_metrics(last_epoch, run_id=run_id)
    store.client.log_outputs(run_id, run.outputs.model_outputs)
    store.client.set_terminated(run_id)
    return run_id


def _unrecorded(
    store: Store, model_md5: str, params_text: str, summary: str, output_shape: Sequence[int | None]
) -> str:
    """Make a row for a model whose training this store has not seen."""
    sections = dict(parse_params(params_text))
    run_id = store.create_run(
        params_text,
        flatten({name: sections[name] for name in ("data", "train_data", "model", "train")}),
        {"model.md5": model_md5, _NOTE: "The training was not recorded in this store."},
        {str(PARAMS): params_text, _SUMMARY: summary},
    )
    _log_model(store, run_id, output_shape)
    store.client.set_terminated(run_id)
    return run_id


def _log_model(store: Store, run_id: str, output_shape: Sequence[int | None]) -> None:
    """Store data/model.keras with the code that serves it."""
    from vanilla_lstm import serving  # imports Keras, as whoever has a model to log does

    model = store.client.create_logged_model(store.experiment_id, "model", run_id)
    with tempfile.TemporaryDirectory() as folder:
        spec = Model(run_id=run_id, model_uuid=model.model_id, model_id=model.model_id)
        serving.write(Path(folder), spec, MODEL, output_shape)
        store.client.log_model_artifacts(model.model_id, folder)
    store.client.finalize_logged_model(model.model_id, "READY")
    store.client.log_outputs(run_id, [entities.LoggedModelOutput(model.model_id, 0)])


def _trained(run: Run) -> bool:
    """Whether the store has seen the training of a row's model."""
    return "train_data.md5" in run.data.tags


def _takes(run: Run, params: dict[str, str]) -> bool:
    """Whether a row has no result yet, nor, from an evaluation that was killed, other params."""
    had = run.data.params
    return "test_data.md5" not in run.data.tags and all(
        had.get(key, value) == value for key, value in params.items()
    )


def _dataset_input(path: Path, dataset: DataSet, context: str) -> entities.DatasetInput:
    source = json.dumps({"uri": str(path)})
    profile = json.dumps({"num_rows": len(dataset.x), "shape": dataset.x.shape})
    described = entities.Dataset(path.name, md5(path), "local", source, profile=profile)
    return entities.DatasetInput(described, [entities.InputTag("mlflow.data.context", context)])
