"""The trials of a sweep over this repository's params."""

from dvc_mlflow.project import Project
from dvc_mlflow.project.experiments import grid
from dvc_mlflow.sweep.search import Trial, Trials


def expand(overrides: list[str], commit: str) -> dict[str, Trial]:
    """Return the trials of a grid by name."""
    with Project() as project:
        make = Trials(project, commit)
        return {trial.name: trial for trial in map(make.trial, grid(overrides))}
