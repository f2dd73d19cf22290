"""Logged models: a row's model is stored once for all rows that share it, and linked to each."""

import json
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from mlflow import MlflowClient
from mlflow.entities import LoggedModel, LoggedModelOutput, LoggedModelStatus, Run
from mlflow.exceptions import MlflowException

from ..errors import ModelError
from ..pipeline.keys import md5_tag
from ..pipeline.row import ServedModel
from ..pipeline.tags import MODEL
from .store import Store

if TYPE_CHECKING:
    from mlflow.models import Model as Package
    from mlflow.models import ModelSignature  # slow, and few rows have a model


def log_model(store: Store, run: Run, model: ServedModel) -> str:
    """Link a run to its model in MLflow, and store the model if no run has had it yet.

    Return the id of the logged model. Raises `ModelError`.
    """
    logged_models = store.client.search_logged_models(
        [run.info.experiment_id], f"tags.`{MODEL}` = '{model.identity}'"
    )
    logged = next(iter(logged_models), None)
    if logged is None or logged.status != LoggedModelStatus.READY:
        logged = _stored(store, run, model, logged)
    outputs = store.client.get_run(run.info.run_id).outputs
    if logged.model_id not in [o.model_id for o in (outputs.model_outputs if outputs else ())]:
        store.client.log_outputs(run.info.run_id, [LoggedModelOutput(logged.model_id, 0)])
    return str(logged.model_id)


def _stored(store: Store, run: Run, model: ServedModel, logged: LoggedModel | None) -> LoggedModel:
    """Store a model, which a killed recording can have `logged` already without its files."""
    run_id = run.info.run_id
    with TemporaryDirectory() as folder:
        package = Path(folder, "package")
        if model.is_package:
            _write(model, package)
        else:
            data = Path(folder, "model", Path(model.model.path).name)
            _write(model, data)
            _pack(model, data, Path(folder, "code"), package)
        spec = _load(package)
        if logged is None:
            tags = {MODEL: model.identity, md5_tag(model.model.path): model.md5}
            logged = store.client.create_logged_model(
                run.info.experiment_id, mlflow_name(model.model.name), run_id, tags=tags
            )
        model_id, place = logged.model_id, logged.artifact_location
        if why := store.why_not_there(place, logged.experiment_id, "models", model_id):
            raise ModelError(why)
        spec.run_id, spec.model_uuid, spec.model_id = run_id, model_id, model_id
        spec.save(str(package / "MLmodel"))
        store.log_artifacts(place, str(package))
    return store.client.finalize_logged_model(logged.model_id, "READY")


def logged_model(client: MlflowClient, run: Run, path: str, md5: str) -> str:
    """Return the id of a run's logged model with these bytes, the newest one; "" if it has none.

    A model of the same bytes is logged again if dvc.yaml loads it in another way.
    """
    ids = {output.model_id for output in (run.outputs.model_outputs if run.outputs else ())}
    query = f"tags.`{md5_tag(path)}` = '{md5}'"  # it finds none that somebody has deleted
    every = client.search_logged_models([run.info.experiment_id], query) if ids else ()
    found = [each for each in every if each.model_id in ids]
    newest = max(found, key=lambda each: int(each.creation_timestamp), default=None)
    return str(newest.model_id) if newest else ""


def mlflow_name(artifact: str) -> str:
    """Return what MLflow calls an artifact, in whose name it allows some characters only."""
    return re.sub(r"[/:.%\"']", "-", artifact)


def is_alias(stage: str) -> bool:
    """Whether MLflow allows an alias of this name."""
    is_reserved = re.fullmatch(r"(?i)latest|v\d+", stage)
    return bool(re.fullmatch(r"[\w-]{1,255}", stage)) and not is_reserved


def _write(model: ServedModel, target: Path) -> None:
    """Write a model's files; those that are here are linked, as a model can have a few GB."""
    for path, content in model.files:
        place = target.joinpath(*Path(path).parts)
        place.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            place.write_bytes(content)
        else:
            place.symlink_to(content)


def _pack(model: ServedModel, data: Path, folder: Path, package: Path) -> None:
    """Write what MLflow serves: the model, the code that it needs and its requirements."""
    import mlflow.pyfunc

    for path, content in model.code.items():
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    paths = [str(path) for path in sorted(folder.iterdir())] if model.code else None
    try:
        with warnings.catch_warnings():
            # The signature is enough; MLflow would run an example through the model.
            warnings.simplefilter("ignore")
            mlflow.pyfunc.save_model(
                str(package),
                loader_module=model.model.loader_module,
                data_path=str(data),
                code_paths=paths,
                mlflow_model=_flavored(model, data.name),
                signature=_signature(model.model.signature),
                pip_requirements=[*model.requirements],
            )
    except (MlflowException, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ModelError(" ".join(str(error).split())[:300]) from None


def _flavored(model: ServedModel, name: str) -> "Package":
    """Return a model's MLmodel, with the flavor of MLflow's own that loads it.

    `mlflow.sklearn.load_model` and the like ask for theirs; each calls the file in another way.
    """
    from mlflow.models import Model as Package

    package, (library, _, flavor) = Package(), model.model.loader_module.partition(".")
    if library == "mlflow":
        file = f"data/{name}"
        package.add_flavor(flavor, data=file, pickled_model=file, serialization_format="pickle")
    return package


def _signature(signature: Mapping[str, Any]) -> "ModelSignature | None":
    from mlflow.models import ModelSignature

    if not signature:
        return None
    return ModelSignature.from_dict({key: json.dumps(value) for key, value in signature.items()})


def _load(package: Path) -> "Package":
    """Return the content of a package's MLmodel file."""
    from mlflow.models import Model as Package

    file = package / "MLmodel"
    text = file.read_bytes()
    file.unlink()  # it can be a link into DVC's cache, out of which MLflow reads nothing
    file.write_bytes(text)
    try:
        return Package.load(str(package))
    except Exception as error:  # it can hold anything
        raise ModelError(f"MLmodel: {' '.join(str(error).split())[:300]}") from None
