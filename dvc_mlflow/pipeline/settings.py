"""A stage's settings and models in dvc.yaml, which `project.settings` reads."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Model:
    """A model as MLflow serves it: an output, and what loads it. Nothing of it is imported here."""

    path: str
    loader_module: str = ""
    """The module whose `_load_pyfunc(path)` MLflow calls when the model is served."""
    code_paths: Sequence[str] = ()
    pip_requirements: Sequence[str] | str = ()
    """Requirements, or the path of a requirements file."""
    signature: Mapping[str, Any] = field(default_factory=dict)
    name: str = ""
    """Its key in `artifacts`, after the folder of that dvc.yaml; or its name in `meta.mlflow`."""
    is_of_checkout: bool = field(default=False, repr=False)
    """Whether the checkout says how a commit's model is loaded, as that commit does not."""


@dataclass(frozen=True)
class Settings:
    """A stage's `meta.mlflow`."""

    experiment: str = ""
    prefix: str | None = None
    columns: Sequence[str] = ()
    data: Sequence[str] = ()
    models: Sequence[Model] = ()
    promote: Sequence[str] = ()
    """Metrics that decide which row is better, compared in turn; with a `-`, lower is better."""
