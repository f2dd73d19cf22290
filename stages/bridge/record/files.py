"""What MLflow keeps of a pipeline's files: models, and the data sets that were read."""

import json
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple, Protocol

from mlflow import entities
from mlflow.models import Model

from ..run.files import md5
from .store import Store

_SIZE = "size"


class Serve(Protocol):
    """Writes a model file as MLflow serves it: `path` and `mlflow_model` are for `save_model`."""

    def __call__(self, model: Path, *, path: str, mlflow_model: Model) -> None: ...


class Data(NamedTuple):
    """A data set that a stage read: its file, and what MLflow shows of it."""

    path: Path
    profile: Mapping[str, Any] = {}

    def as_input(self, context: str) -> entities.DatasetInput:
        """Return the input of a run, its digest the md5 that DVC writes to dvc.lock."""
        source, profile = json.dumps({"uri": str(self.path)}), json.dumps(dict(self.profile))
        digest = md5(self.path)
        dataset = entities.Dataset(self.path.name, digest, "local", source, profile=profile)
        return entities.DatasetInput(dataset, [entities.InputTag("mlflow.data.context", context)])


def log_model(store: Store, run_id: str, model: Path, serve: Serve) -> None:
    """Store a model as MLflow serves it.

    By its parts: `log_model` would need an active run, and resuming a FINISHED one changes its end.
    """
    logged = store.client.create_logged_model(store.experiment_id, "model", run_id)
    _upload(store, run_id, logged.model_id, model, serve)
    store.client.finalize_logged_model(logged.model_id, "READY")
    store.client.log_outputs(run_id, [entities.LoggedModelOutput(logged.model_id, 0)])


def renew_model(store: Store, run: entities.Run, model: Path, serve: Serve) -> None:
    """Store the model of a run again if its files have another size than they had."""
    for output in run.outputs.model_outputs:
        logged = store.client.get_logged_model(output.model_id)
        if logged.tags.get(_SIZE) != str(_size(store, output.model_id)):
            _upload(store, run.info.run_id, output.model_id, model, serve)


def _upload(store: Store, run_id: str, model_id: str, model: Path, serve: Serve) -> None:
    with TemporaryDirectory() as folder:
        spec = Model(run_id=run_id, model_uuid=model_id, model_id=model_id)
        serve(model, path=f"{folder}/model", mlflow_model=spec)
        store.client.log_model_artifacts(model_id, f"{folder}/model")
    store.client.set_logged_model_tags(model_id, {_SIZE: str(_size(store, model_id))})


def _size(store: Store, model_id: str, path: str | None = None) -> int:
    """Return how many bytes the store has of a model."""
    files = store.client.list_logged_model_artifacts(model_id, path)
    return sum(_size(store, model_id, f.path) if f.is_dir else f.file_size or 0 for f in files)
