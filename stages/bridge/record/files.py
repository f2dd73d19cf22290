"""Log a pipeline's files in MLflow: models, and the data sets that stages read."""

import json
import re
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple, Protocol

from dvc.config import Config
from dvc.config_schema import RelPath
from mlflow import entities
from mlflow.models import Model

from ..run.files import AnyPath, md5
from .store import Store

_SIZE = "size"
_UNSERVED = "model"  # where a run keeps a model that MLflow does not serve
_REMOTES = ("local", "s3", "gs", "hdfs", "http", "https")
_VERSIONED = {"version_aware", "worktree"}


class Serve(Protocol):
    """Saves a model file for MLflow to serve: `path` and `mlflow_model` are for `save_model`."""

    def __call__(self, model: Path, *, path: str, mlflow_model: Model) -> None: ...


class Data(NamedTuple):
    """A data set that a stage read: its file, and the profile that MLflow shows."""

    path: AnyPath
    profile: Mapping[str, Any] = {}

    def as_input(self, context: str) -> entities.DatasetInput:
        """Return a run's input, whose digest is the md5 that DVC writes to dvc.lock.

        Its source names the file by its md5, so that `load()` never returns other bytes.
        """
        digest, profile = md5(self.path), json.dumps(dict(self.profile))
        kind, source = _source(digest)
        dataset = entities.Dataset(Path(self.path).name, digest, kind, source, profile=profile)
        return entities.DatasetInput(dataset, [entities.InputTag("mlflow.data.context", context)])


def dvc_config(folder: Path) -> Any:
    """Return the config of the DVC project that contains a folder, with the path of its cache."""
    around = (path / ".dvc" for path in (folder, *folder.parents))
    dvc = next((path for path in around if path.is_dir()), folder / ".dvc")
    config = Config(dvc, validate=False)
    config["cache"].setdefault("dir", RelPath(dvc / "cache"))
    return config


def _source(digest: str) -> tuple[str, str]:
    """Return a file's MLflow source: DVC's default remote, or its cache if MLflow cannot read that.

    MLflow reads only some kinds of remote, and none that keeps versions of files.
    """
    config = dvc_config(Path.cwd())
    remote = config["remote"].get(config["core"].get("remote"), {})
    address = str(remote.get("url", ""))
    kind = address.partition("://")[0] if "://" in address else "local"
    if not address or kind not in _REMOTES or _VERSIONED & remote.keys():
        address, kind = str(config["cache"]["dir"]), "local"
    path = f"{address.rstrip('/')}/files/md5/{digest[:2]}/{digest[2:]}"
    if kind.startswith("http"):
        return "http", json.dumps({"url": path})
    return kind, json.dumps({"uri": path})


@contextmanager
def packed(model: Path, serve: Serve | None) -> Iterator[Path | None]:
    """Yield the folder to which `serve` has saved a model, or None if there is none.

    Errors in `serve` are the user's own: the whole traceback is printed, and the stage continues.
    """
    with TemporaryDirectory() as folder:
        package = Path(folder, "model") if serve else None
        try:
            if serve:
                serve(model, path=f"{package}", mlflow_model=Model())
                Model.load(f"{package}")
        except Exception:
            traceback.print_exc()
            print(f"warning: MLflow cannot serve {model}, and stores it as it is", file=sys.stderr)
            package = None
        yield package


def log_model(store: Store, run_id: str, model: Path, package: Path | None) -> None:
    """Store a model's package for MLflow to serve or, without one, the model as an artifact.

    MLflow's `log_model` needs an active run, and resuming a FINISHED run changes its end time.
    """
    client = store.client
    if package is None:
        client.log_artifact(run_id, str(model), _UNSERVED)  # a file or a folder
        return
    name = re.sub(r"[/:.%\"']", "_", client.get_run(run_id).info.run_name)  # what MLflow allows
    logged = client.create_logged_model(store.experiment_id, name, run_id)
    _upload(store, run_id, logged.model_id, package)
    client.finalize_logged_model(logged.model_id, "READY")
    client.log_outputs(run_id, [entities.LoggedModelOutput(logged.model_id, 0)])


def renew_model(store: Store, run_id: str, model: Path, package: Path) -> None:
    """Store a run's model again if its stored files are damaged or it could not be served."""
    models = store.models(run_id)
    for output in models:
        logged = store.client.get_logged_model(output.model_id)
        if logged.tags.get(_SIZE) != str(_size(store, output.model_id)):
            _upload(store, run_id, output.model_id, package)
    if not models:
        log_model(store, run_id, model, package)


def _upload(store: Store, run_id: str, model_id: str, package: Path) -> None:
    spec = Model.load(str(package))
    spec.run_id, spec.model_uuid, spec.model_id = run_id, model_id, model_id
    spec.save(str(package / "MLmodel"))
    store.client.log_model_artifacts(model_id, str(package))
    store.client.set_logged_model_tags(model_id, {_SIZE: str(_size(store, model_id))})


def _size(store: Store, model_id: str, path: str | None = None) -> int:
    """Return the size in bytes of a model in the store."""
    files = store.client.list_logged_model_artifacts(model_id, path)
    return sum(_size(store, model_id, f.path) if f.is_dir else f.file_size or 0 for f in files)
