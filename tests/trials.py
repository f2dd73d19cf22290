"""The trials of a sweep over this repository's params."""

from dvc_mlflow.project import Project
from dvc_mlflow.sweep.search import Trial, Trials


def expand(overrides: list[str], commit: str) -> dict[str, Trial]:
    with Project() as project:
        return Trials(project, commit).expand(overrides)
