"""The models that a commit has, each with its row in MLflow and what MLflow serves."""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

from mlflow.entities import Run

from ..errors import ModelError
from ..pipeline.keys import md5_tag
from ..pipeline.stages import Model, Output
from ..project.definitions import read_pipeline
from ..project.project import Project
from ..rows.served_models import loader_of, served
from ..store.models import log_model, logged_model
from ..store.store import Store


class CommittedModel(NamedTuple):
    """A model in the dvc.lock of a commit, or in that of the checkout, whose commit is "".

    It is `declared_at` the commit whose dvc.yaml says how to load it: its own, or else the
    checkout. `md5s` are those of all that the commit's stages write, by the tags of a row.
    """

    commit: str
    model: Model
    output: Output
    declared_at: str
    md5s: Mapping[str, str]


def models_at(project: Project, commit: str) -> list[CommittedModel]:
    """Return the models of a commit that `artifacts` there, or in the checkout, declare.

    A model keeps the name that its commit has given it. Raises `ProjectError`.
    """
    with project.at(commit):
        then = read_pipeline(project)
    models = {model.path: (model, commit) for model in then.models}
    for model in read_pipeline(project).models:
        own, at = models.get(model.path, (model, ""))
        models[model.path] = (own, at) if own.loader_module else (replace(model, name=own.name), "")
    outs = {out.path: out for stage in then.stages.values() for out in stage.outs}
    outs = {path: out for path, out in outs.items() if re.fullmatch(r"\w+(\.dir)?", out.md5)}
    md5s = {md5_tag(path): out.md5 for path, out in outs.items()}
    return [
        CommittedModel(commit, model, outs[path], at, md5s)
        for path, (model, at) in models.items()
        if path in outs
    ]


def row_with_model(store: Store, committed: CommittedModel) -> Run | None:
    """Return the finished row that has a model, and most of what its commit has, if there is one.

    Rows share a model; what its evaluations have written says which row is the commit's.
    """
    has_model = f"tags.`{md5_tag(committed.output.path)}` = '{committed.output.md5}'"
    query = f"{has_model} and attributes.status = 'FINISHED'"
    rows = store.runs(query, experiments=store.all_experiments())

    def n_common(row: Run) -> int:
        return sum(row.data.tags.get(key) == md5 for key, md5 in committed.md5s.items())

    return max(rows, key=n_common, default=None)


def logged(
    project: Project, store: Store, row: Run, committed: CommittedModel, *, dry: bool = False
) -> str:
    """Return the id of a row's logged model; log it first if MLflow has none, unless `dry`.

    Raises `ModelError` or `ProjectError` if it cannot be served.
    """
    model, output = committed.model, committed.output
    if model_id := logged_model(store.client, row, output.path, output.md5):
        return model_id
    with project.at(committed.declared_at):
        loader = loader_of(project, model) if model.loader_module else None
    with project.at(committed.commit):
        read_pipeline(project)  # its files are now those of the commit
        served_model = served(project, model, output, loader)
    if served_model is None:
        key = model.name.rpartition(":")[2]
        raise ModelError(f"MLflow cannot load it; artifacts.{key}.meta needs a loader_module")
    return "" if dry else log_model(store, row, served_model)
