"""MLflow's model registry: the versions, aliases and tags of one registered model."""

import re
from collections.abc import Iterator, Mapping
from contextlib import redirect_stderr
from dataclasses import dataclass, field
from io import StringIO

import mlflow
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion


@dataclass(frozen=True)
class RegisteredModel:
    """A registered model as it is in the store; with its name alone, one that is not there yet."""

    name: str
    tags: Mapping[str, str] = field(default_factory=dict)
    aliases: Mapping[str, str] = field(default_factory=dict)
    """Numbers of versions by alias."""
    versions: Mapping[str, ModelVersion] = field(default_factory=dict)
    """By number, the oldest first."""

    def with_tag(self, key: str, value: str) -> ModelVersion | None:
        """Return the oldest version with a tag, if there is one."""
        return next((v for v in self.versions.values() if v.tags.get(key) == value), None)


def read(client: MlflowClient, artifact: str) -> RegisteredModel:
    """Return the registered model of an artifact in git, whose name can have a folder."""
    name = re.sub("[/:]", "-", artifact)  # MLflow's has neither
    try:
        found = client.get_registered_model(name)
    except mlflow.MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return RegisteredModel(name)
    versions = sorted(_versions(client, name), key=lambda each: int(each.version))
    return RegisteredModel(
        name,
        dict(found.tags),
        {alias: f"{number}" for alias, number in found.aliases.items()},
        {f"{each.version}": each for each in versions},
    )


def add(
    client: MlflowClient, name: str, model_id: str, tags: Mapping[str, str], unique: str
) -> str:
    """Register a logged model, unless another clone does so now; return the version's number.

    Of versions with the same tag `unique`, the oldest stays.
    """
    with redirect_stderr(StringIO()):  # MLflow reports each step
        made = mlflow.register_model(f"models:/{model_id}", name, tags={**tags})
    same = [v for v in _versions(client, name) if v.tags.get(unique) == tags[unique]]
    first = min((int(each.version) for each in same), default=int(made.version))
    if first < int(made.version):
        client.delete_model_version(name, f"{made.version}")
    return f"{first}"


def is_alias(name: str) -> bool:
    """Whether MLflow allows an alias of this name."""
    is_reserved = re.fullmatch(r"(?i)latest|v\d+", name)
    return bool(re.fullmatch(r"[\w-]{1,255}", name)) and not is_reserved


def _versions(client: MlflowClient, name: str) -> Iterator[ModelVersion]:
    token = None
    while True:
        page = client.search_model_versions(f"name = '{name}'", page_token=token)
        yield from page
        if not (token := page.token):
            return
