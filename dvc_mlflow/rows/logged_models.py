"""A stage's model as MLflow serves it; nothing of the user's is imported before it is served."""

import hashlib
import json
import posixpath
import re
import warnings
from collections.abc import Callable, Mapping, Set
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ..store.store import Store  # before MLflow, which it sets up

# isort: split
import mlflow.pyfunc
from mlflow import MlflowClient
from mlflow.entities import LoggedModel, LoggedModelOutput, LoggedModelStatus, Run
from mlflow.exceptions import MlflowException
from mlflow.models import Model as Package
from mlflow.models import ModelSignature

from ..pipeline.settings import Model
from ..pipeline.stages import Output
from ..pipeline.tags import MD5, MODEL, tagged
from ..project import Project


class UnservableModelError(Exception):
    """MLflow cannot serve a model; the message says why."""


def log(store: Store, project: Project, run_id: str, model: Model, output: Output) -> None:
    """Link a run to its model in MLflow, and store the model if no run has had it yet.

    A model that neither dvc.yaml nor an MLmodel file says how to load is left out. Raises
    `UnservableModelError`.
    """
    files = project.files(output)
    is_package = any(file.path == f"{output.path}/MLmodel" for file in files or ())
    if not (model.loader_module or is_package):
        return
    code = {} if is_package else _code(project, model)
    requirements = [] if is_package else _requirements(project, model)
    made_of = [model.loader_module, requirements, dict(model.signature)]
    digests = {path: _md5(content) for path, content in code.items()}
    identity = _md5(json.dumps([output.md5, is_package or made_of, digests]).encode())
    found = store.client.search_logged_models(
        [store.experiment_id], f"tags.`{MODEL}` = '{identity}'"
    )
    logged = next(iter(found), None)
    if logged is None or logged.status != LoggedModelStatus.READY:
        with TemporaryDirectory() as folder:
            package = Path(folder, "package")
            if is_package:
                complete = project.export(output, package)
            else:
                data = Path(folder, "model", posixpath.basename(output.path))
                complete = project.export(output, data)
                if complete:
                    _pack(model, data, Path(folder, "code"), code, requirements, package)
            if not complete:
                raise UnservableModelError("its bytes are neither here nor in DVC's cache")
            spec = _load(package)
            if logged is None:
                tags = {MODEL: identity, f"{MD5}{output.path}": output.md5}
                logged = store.client.create_logged_model(
                    store.experiment_id, logged_name(model.name), run_id, tags=tags
                )
            if why := store.why_no_model(logged):
                raise UnservableModelError(why)
            model_id = logged.model_id
            spec.run_id, spec.model_uuid, spec.model_id = run_id, model_id, model_id
            spec.save(str(package / "MLmodel"))
            store.log_model_artifacts(logged, str(package))
        store.client.finalize_logged_model(logged.model_id, "READY")
    outputs = store.client.get_run(run_id).outputs
    if logged.model_id not in [o.model_id for o in (outputs.model_outputs if outputs else ())]:
        store.client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, 0)])


def of_run(
    client: MlflowClient, run: Run, is_wanted: Callable[[LoggedModel, Set[str]], bool]
) -> list[str]:
    """Return the ids of a run's logged models; if it has several, of those that are wanted.

    `is_wanted` gets a model, and the md5s that its tags have of its outputs: none in 2.0.0.
    """
    outputs = run.outputs.model_outputs if run.outputs else ()
    found = list(dict.fromkeys(output.model_id for output in outputs))
    if len(found) < 2:
        return found
    models = [client.get_logged_model(model_id) for model_id in found]
    return [m.model_id for m in models if is_wanted(m, {*tagged(m.tags, MD5).values()})]


def logged_name(name: str) -> str:
    """Return the name of a model in MLflow, which allows some characters only."""
    return re.sub(r"[/:.%\"']", "_", name)


def _code(project: Project, model: Model) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for path in model.code_paths:
        files = project.code(path)
        if not files:
            raise UnservableModelError(f"code_paths: {path!r} is not there")
        start = posixpath.dirname(path)
        found |= {posixpath.relpath(f, start or "."): content for f, content in files.items()}
    return found


def _requirements(project: Project, model: Model) -> list[str]:
    """Return the requirements; if they are in a file, without its hashes and options."""
    if not isinstance(model.pip_requirements, str):
        return list(model.pip_requirements)
    text = project.text(model.pip_requirements)
    if text is None:
        raise UnservableModelError(f"pip_requirements: {model.pip_requirements!r} is not there")
    lines = re.sub(r"\\\r?\n", " ", text).splitlines()
    plain = [re.split(r"\s(?:#|--)", line.strip())[0].strip() for line in lines]
    return [line for line in plain if line and not line.startswith(("#", "-"))]


def _pack(
    model: Model,
    data: Path,
    folder: Path,
    code: Mapping[str, bytes],
    requirements: list[str],
    package: Path,
) -> None:
    """Write what MLflow serves: the model, the code that it needs and its requirements."""
    for path, content in code.items():
        file = folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    try:
        with warnings.catch_warnings():
            # The signature is enough; MLflow would run an example through the model.
            warnings.simplefilter("ignore")
            mlflow.pyfunc.save_model(
                str(package),
                loader_module=model.loader_module,
                data_path=str(data),
                code_paths=[str(path) for path in sorted(folder.iterdir())] if code else None,
                mlflow_model=Package(),
                signature=_signature(model.signature),
                pip_requirements=requirements,
            )
    except (MlflowException, ValueError, TypeError, KeyError, AttributeError) as error:
        raise UnservableModelError(" ".join(str(error).split())[:300]) from None


def _signature(given: Mapping[str, Any]) -> ModelSignature | None:
    if not given:
        return None
    return ModelSignature.from_dict({key: json.dumps(value) for key, value in given.items()})


def _load(package: Path) -> Package:
    """Return the content of a package's MLmodel file."""
    file = package / "MLmodel"
    text = file.read_bytes()
    file.unlink()  # it can be a link into DVC's cache, out of which MLflow reads nothing
    file.write_bytes(text)
    try:
        return Package.load(str(package))
    except Exception as error:  # it can hold anything
        raise UnservableModelError(f"MLmodel: {' '.join(str(error).split())[:300]}") from None


def _md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()
