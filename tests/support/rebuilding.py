"""Record a pipeline, read all that its rows and its store hold, and compare two stores."""

import base64
import json
import os
import shutil
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import mlflow
from mlflow import MlflowClient
from mlflow.entities import Run

from dvc_mlflow.pipeline.tags import CLONE, PROCESS
from support.clone import contents as contents_of
from support.pipelines import SERVED, Repository, Said, evaluate

NOTHING = "nothing to do: MLflow has this result"


def rows_of(address: str) -> list[Run]:
    """Return the rows of a store, newest first."""
    client = MlflowClient(address)
    return list(client.search_runs([e.experiment_id for e in client.search_experiments()]))


def experiments(project: Repository) -> list[str]:
    """Return the names of the experiments that have rows."""
    client = project.client
    ids = {run.info.experiment_id for run in project.rows()}
    return sorted(client.get_experiment(number).name for number in ids)


def check_loads(project: Repository, run: Run) -> None:
    """Check that a row's model and its files are found in this repository."""
    model = project.client.get_logged_model(project.models(run)[0])
    assert is_inside(model.artifact_location, project.path)
    assert is_inside(run.info.artifact_uri, project.path)
    loaded = mlflow.pyfunc.load_model(model.artifact_location)
    assert loaded.predict([1, 2]) == ["1\nrate: 1\n"] * 2
    (file,) = (Path(path_of(run.info.artifact_uri), "model.txt"),)
    assert file.read_text() == "1\nrate: 1\n"
    assert "model.txt" in project.artifacts(run)


def path_of(uri: str) -> str:
    """Return the path in a file address."""
    return unquote(urlsplit(uri).path)


def is_inside(uri: str, folder: Path) -> bool:
    """Whether a file address is below a folder."""
    return Path(path_of(uri)).is_relative_to(folder)


UNCACHED = {"cache": False}


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


STAGES = {**SERVED, "b": {**evaluate("b"), "plots": [{"b.txt": {"cache": False}}]}}
STAGES["b"]["cmd"] += "; echo text > b.txt"


def contents(project: Repository, address: str = "") -> list[dict[str, Any]]:
    """Return all that is in a store, except ids and processes, which differ each time.

    A repository's own store is read from a copy: MLflow would keep a deleted one open.
    """
    client = MlflowClient(address or f"sqlite:///{store_copied(project)}")
    ids = [experiment.experiment_id for experiment in client.search_experiments()]
    models = client.search_logged_models(ids)
    rows = [client.get_run(run.info.run_id) for run in client.search_runs(ids)]
    linked = [output.model_id for row in rows for output in row.outputs.model_outputs]
    assert sorted(linked) == sorted(model.model_id for model in models)
    assert all(model.status == "READY" for model in models)
    return [_content(client, row) for row in rows]


def undisturbed(project: Repository) -> list[dict[str, Any]]:
    """Record a pipeline of `STAGES` that has run, and return all that is in its store."""
    assert project.record().status == 0
    rows = contents(project)
    (row,) = rows
    assert {*row["points"]} == {"train/loss", "a/score", "b/score"}
    assert {*row["artifacts"]} == {"model.txt", "curve.csv", "a.json", "b.json", "b.txt"}
    assert len(row["models"]) == 1
    return rows


def store_copied(project: Repository) -> Path:
    """Copy a repository's own store, with what a killed process has not ended."""
    place = project.path.with_name(f"read-{time.monotonic_ns()}.db")
    for end in ("", "-journal"):
        if (path := project.path / f"mlflow.db{end}").exists():
            shutil.copyfile(path, f"{place}{end}")
    return place


def _content(client: MlflowClient, row: Run) -> dict[str, Any]:
    own = {CLONE, PROCESS}
    points = {
        key: [
            (m.step, m.value, m.timestamp) for m in client.get_metric_history(row.info.run_id, key)
        ]
        for key in row.data.metrics
    }
    return {
        "name": row.info.run_name,
        "status": row.info.status,
        "start": row.info.start_time,
        "params": row.data.params,
        "points": {key: sorted(found) for key, found in points.items()},
        "metrics": row.data.metrics,
        "tags": {key: value for key, value in row.data.tags.items() if key not in own},
        "inputs": sorted(
            (given.dataset.name, given.dataset.digest, given.tags[0].value)
            for given in row.inputs.dataset_inputs
        ),
        "artifacts": contents_of(Path(client.download_artifacts(row.info.run_id, ""))),
        "models": [_served(client, output.model_id) for output in row.outputs.model_outputs],
    }


def _served(client: MlflowClient, model_id: str) -> tuple[Any, ...]:
    model = client.get_logged_model(model_id)
    uri, place = model.artifact_location, client.tracking_uri
    folder = mlflow.artifacts.download_artifacts(artifact_uri=uri, tracking_uri=place)
    return model.name, model.tags, mlflow.pyfunc.load_model(folder).predict([1])


def in_child(work: Callable[[], object]) -> int:
    """Do some work in another process, as a command is one; return its exit code or -signal."""
    if child := os.fork():
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    code = 99
    try:
        code = int(str(work()))
    finally:
        os._exit(code)
