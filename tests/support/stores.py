"""What a store holds, and whether the files that it names are there."""

from pathlib import Path
from urllib.parse import unquote, urlsplit

import mlflow
from mlflow import MlflowClient
from mlflow.entities import Run

from support.pipelines import Repository

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


def files(folder: Path) -> set[str]:
    """Return the paths of all files and folders below a folder, without those of git and DVC."""
    found = {path.relative_to(folder) for path in folder.rglob("*")}
    return {f"{path}" for path in found if not {".git", "cache", "tmp"} & {*path.parts}}


def check_loads(project: Repository, run: Run) -> None:
    """Check that a row's model and its files are found in this repository."""
    output = run.outputs.model_outputs[0].model_id
    model = project.client.get_logged_model(output)
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
