"""The models of a result as MLflow serves them; nothing of the user's is imported."""

import json
import posixpath
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ..errors import ModelError
from ..pipeline.row import NO_MODEL, Part, RowKey, ServedModel
from ..pipeline.stages import Model, Output
from ..project.files import code_below, content_md5, contents_of, files_of
from ..project.project import Project
from .result import Result


class Loader(NamedTuple):
    """What loads a model."""

    code: Mapping[str, bytes]
    """Files by their paths below a folder that Python imports from."""
    requirements: Sequence[str]


def add_models(result: Result, name: RowKey, part: Part) -> None:
    """Add the models of one member of a row, and say which cannot be served.

    A model that neither dvc.yaml nor an MLmodel file says how to load is left out.
    """
    for _, model, output in result.models([name]):
        try:
            served_model = served(result.project, model, output)
        except ModelError as error:
            part.notes.append(f"model {model.path}: {error}")
        else:
            part.models += [served_model] if served_model else []


def served(
    project: Project, model: Model, output: Output, loader: Loader | None = None
) -> ServedModel | None:
    """Return a model as MLflow serves it, or None if nothing says how to load it.

    Without a `loader`, the project has it where it has the model. Raises `ModelError`.
    """
    files = files_of(project, output)
    is_package = any(file.path == f"{output.path}/MLmodel" for file in files or ())
    if not (model.loader_module or is_package):
        return None
    loader = Loader({}, []) if is_package else loader or loader_of(project, model)
    made_of = [model.loader_module, loader.requirements, dict(model.signature)]
    digests = {path: content_md5(content) for path, content in loader.code.items()}
    contents = contents_of(project, output)
    if contents is None:
        raise ModelError(NO_MODEL)
    return ServedModel(
        model=model,
        md5=output.md5,
        identity=content_md5(json.dumps([output.md5, is_package or made_of, digests]).encode()),
        requirements=loader.requirements,
        code=loader.code,
        files=contents,
        is_package=is_package,
    )


def loader_of(project: Project, model: Model) -> Loader:
    """Return what loads a model in the checkout or the commit; raises `ModelError`."""
    return Loader(_code(project, model), _requirements(project, model))


def _code(project: Project, model: Model) -> dict[str, bytes]:
    code: dict[str, bytes] = {}
    for path in model.code_paths:
        if not (files := code_below(project, path)):
            raise ModelError(f"code_paths: {path!r} is not there")
        start = posixpath.dirname(path)
        code |= {posixpath.relpath(f, start or "."): content for f, content in files.items()}
    return dict(sorted(code.items()))  # a checkout and a commit list them in different orders


def _requirements(project: Project, model: Model) -> list[str]:
    """Return the requirements; if they are in a file, without its hashes and options."""
    path = model.pip_requirements
    if not isinstance(path, str):
        return list(path)
    if (text := project.text(path)) is None:
        raise ModelError(f"pip_requirements: {path!r} is not there")
    lines = re.sub(r"\\\r?\n", " ", text).splitlines()
    plain = [re.split(r"\s(?:#|--)", line.strip())[0].strip() for line in lines]
    return [line for line in plain if line and not line.startswith(("#", "-"))]
