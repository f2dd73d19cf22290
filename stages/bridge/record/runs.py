"""MLflow runs: create them, copy them, and pass on the scores of an identical model."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from dvc_mlflow.store import NOTE  # before MLflow, which it sets up

from .store import MODEL_MD5, Store

# isort: split
import mlflow
from mlflow import entities
from mlflow.entities import Run
from mlflow.exceptions import MlflowException

from ..run import params as params_file
from ..run.params import flatten, updated
from . import provenance
from .files import log_model
from .kept import FILES, copy_files, log_files
from .patches import PATCH, log_patch

Params = Mapping[str, Mapping[str, Any]]
"""Params by section, as in params.yaml."""

TRAIN = "train"
"""The training's split; the others are named as their evaluations."""


def data_md5(split: str) -> str:
    """Return the tag with the md5 of the data of a split."""
    return f"{split}_data.md5"


TRAIN_DATA_MD5, TEST_DATA_MD5 = data_md5(TRAIN), data_md5("test")


def context(split: str) -> str:
    """Return the context that MLflow shows for the data of a split."""
    return {TRAIN: "training", "test": "testing"}.get(split, split)


def evaluations(run: Run) -> list[str]:
    """Return the names of the evaluations that a row has."""
    end = data_md5("")
    found = {tag.removesuffix(end) for tag in run.data.tags if tag.endswith(end)}
    return sorted(found - {TRAIN})


def create(
    store: Store,
    params: Params,
    tags: Mapping[str, str],
    texts: Mapping[str, str],
    inputs: Sequence[entities.DatasetInput] = (),
) -> str:
    """Open a row with these params, named after what differs from the committed ones."""
    values, text = _read_params(store)
    title = provenance.title(flatten({**values, **params}), store.params)
    tags = {**tags, **provenance.tags(store.root, store.params)}
    run = store.client.create_run(store.experiment_id, run_name=title, tags=tags)
    run_id = str(run.info.run_id)
    mlflow.log_params(flatten(params), run_id=run_id)
    store.log_inputs(run_id, inputs)
    for name, content in {store.params.name: updated(text, params), **texts}.items():
        store.client.log_text(run_id, content, name)
    if tags.get(provenance.DIRTY) == "true":
        log_patch(store, run_id)
    return run_id


def inherit(store: Store, run_id: str, known: Run, params: Mapping[str, Any]) -> None:
    """Add to a row the scores of `known`, another training of the same model, and `params`."""
    client, own = store.client, store.client.get_run(run_id)
    had = {artifact.path for artifact in client.list_artifacts(run_id)} | {FILES, PATCH}
    with TemporaryDirectory() as folder:
        for artifact in client.list_artifacts(known.info.run_id):
            if artifact.path not in had:
                client.download_artifacts(known.info.run_id, artifact.path, folder)
        client.log_artifacts(run_id, folder)
    mlflow.log_params({**params, **own.data.params}, run_id=run_id)
    for name in sorted({*evaluations(known)} - {*evaluations(own)}):
        metrics = {k: v for k, v in known.data.metrics.items() if k.startswith(f"{name}/")}
        _copy_split(store, known, run_id, name, metrics)


def copy(store: Store, run: Run, model: Path, params: Params, name: str) -> str:
    """Create a row for another result of a known model, next to that model's row.

    It gets none of that row's evaluations: they may not hold for it.
    """
    tags = {key: run.data.tags[key] for key in (MODEL_MD5, NOTE) if key in run.data.tags}
    texts = {store.params.name: params_text(store, run.info.run_id)}
    run_id = create(store, params, tags, texts)
    mlflow.log_params({**run.data.params, **flatten(params)}, run_id=run_id)
    scores = tuple(f"{other}/" for other in [name, *evaluations(run)])
    curves = {k: v for k, v in run.data.metrics.items() if not k.startswith(scores)}
    _copy_split(store, run, run_id, TRAIN, curves)
    if logged := store.models(run.info.run_id):
        store.client.log_outputs(run_id, logged)
    else:  # it could not be served
        log_model(store, run_id, model, None)
    store.client.set_terminated(run_id)
    return run_id


def _copy_split(
    store: Store, run: Run, run_id: str, split: str, metrics: Mapping[str, float]
) -> None:
    """Add to a row what another one has of a split: data, its md5, files and these metrics."""
    inputs = [i for i in run.inputs.dataset_inputs if i.tags[0].value == context(split)]
    store.log_inputs(run_id, inputs)
    copy_files(store, run.info.run_id, run_id, split)
    mlflow.log_metrics(metrics, run_id=run_id, dataset=inputs[0].dataset if inputs else None)
    if (tag := data_md5(split)) in run.data.tags:
        store.client.set_tag(run_id, tag, run.data.tags[tag])


def unrecorded(
    store: Store, model: Path, model_md5: str, params: Params, package: Path | None
) -> str:
    """Create a row for a model whose training this store has not seen."""
    values, _ = _read_params(store)
    others = {section: value for section, value in values.items() if section not in params}
    tags = {MODEL_MD5: model_md5, NOTE: "The training was not recorded in this store."}
    run_id = create(store, others, tags, {})
    log_model(store, run_id, model, package)
    log_files(store, run_id, [model], TRAIN)
    store.client.set_terminated(run_id)
    return run_id


def params_text(store: Store, run_id: str) -> str:
    """Return a run's params file, or "" if it is lost or damaged."""
    try:
        return str(mlflow.artifacts.load_text(f"runs:/{run_id}/{store.params.name}"))
    except (MlflowException, OSError):
        return ""


def _read_params(store: Store) -> tuple[dict[str, Any], str]:
    """Return the values in the params file and its text; both are empty if there is no file."""
    return params_file.read(store.params) if store.params.exists() else ({}, "")
