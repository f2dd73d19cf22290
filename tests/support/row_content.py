"""Record a pipeline that has run, and read what its row holds."""

import base64
import json
import zlib
from pathlib import Path
from typing import Any

from mlflow.entities import Run

from support.pipelines import Repository, Said, Stages, repository

UNCACHED = {"cache": False}


def ran(path: Path, stages: Stages, *arguments: Any, **more: Any) -> Repository:
    """Make a repository with these stages, and run them."""
    made = repository(path / "project", stages, *arguments, **more)
    made.dvc("repro")
    return made


def recorded(project: Repository) -> tuple[Run, Said]:
    """Record a project that has one row."""
    said = project.record()
    assert said.status == 0
    (row,) = project.rows()
    return row, said


def curve(project: Repository, row: Run, key: str) -> list[tuple[int, float]]:
    """Return the points of a curve in MLflow."""
    history = project.client.get_metric_history(row.info.run_id, key)
    return sorted((point.step, point.value) for point in history)


def lines(said: Said) -> list[str]:
    """Return what the command complained of, line by line."""
    return [line.removeprefix("dvc-mlflow: ") for line in said.error.splitlines()]


def columns(project: Repository, row: Run) -> dict[str, Any]:
    """Return what the table of a row's experiment shows, from the tag where MLflow keeps it."""
    experiment = project.client.get_experiment(row.info.experiment_id)
    shared = json.loads(experiment.tags["mlflow.sharedViewState.results"])["state"]
    state = json.loads(zlib.decompress(base64.b64decode(shared.removeprefix("deflate;"))))
    assert isinstance(state, dict)
    state.pop("measures", None)  # the tool's own, which the table does not show
    return state


def model_ids(row: Run) -> list[str]:
    """Return the ids of a row's models."""
    outputs = row.outputs.model_outputs if row.outputs else []
    return [output.model_id for output in outputs]
