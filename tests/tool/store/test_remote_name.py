"""The default experiment is named after the git remote, so that all clones share it."""

from pathlib import Path

import pytest
from mlflow import MlflowClient

from dvc_mlflow.place import default_experiment
from support.pipelines import Repository, evaluate, finished
from support.stores import rows_of

pytestmark = [
    pytest.mark.pipeline,
    pytest.mark.filterwarnings("ignore"),  # warnings from MLflow
]

OURS = "git@example.org:us/flowers.git"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """A repository with one result: `copy` it."""
    folder = tmp_path_factory.mktemp("made") / "project"
    return finished(folder, {"a": evaluate("a", "raw.txt")})


@pytest.mark.parametrize(
    ("url", "name"),
    [
        (OURS, "us/flowers"),
        ("https://user:token@example.org/us/flowers", "us/flowers"),
        ("ssh://git@example.org:2222/us/flowers.git/", "us/flowers"),
        ("https://example.org/group/us/flowers.git", "group/us/flowers"),
        ("/srv/git/flowers.git", "flowers"),
        ("../flowers.git", "flowers"),
        ("file:///srv/git/flowers.git", "flowers"),
        ("https://example.org", "project"),
    ],
)
def test_addresses(made: Repository, tmp_path: Path, url: str, name: str) -> None:
    """Its owner and name count, however it is reached; of a folder, its name."""
    project = made.copy(tmp_path / "project")
    project.git("remote", "add", "origin", url)
    (project.path / "mlflow.db").unlink()
    assert default_experiment(project.path) == name
    assert default_experiment(project.path, "sub") == f"{name}/sub"


def experiments(address: str) -> list[str]:
    """Return the names of the experiments with rows."""
    client = MlflowClient(address)
    ids = {row.info.experiment_id for row in rows_of(address)}
    return sorted(client.get_experiment(each).name for each in ids)


def test_two_colleagues(made: Repository, tmp_path: Path) -> None:
    """Clones in folders of other names share one experiment, and each result is in it once."""
    address = f"sqlite:///{tmp_path}/rows.db"
    for name in ("mine", "yours"):
        clone = made.copy(tmp_path / name)
        clone.git("remote", "add", "origin", OURS)
        for arguments in ((), ("--all",)):
            assert clone.tool("record", *arguments, MLFLOW_TRACKING_URI=address).status == 0
    assert experiments(address) == ["us/flowers"]
    assert len(rows_of(address)) == 1


def test_name_of_an_older_version(made: Repository, tmp_path: Path) -> None:
    """A store in which this repository's rows are under the folder's name keeps that."""
    address = f"sqlite:///{tmp_path}/rows.db"
    clone, other = made.copy(tmp_path / "flowers"), made.copy(tmp_path / "more" / "flowers")
    clone.git("remote", "add", "origin", OURS)
    named = {"MLFLOW_TRACKING_URI": address, "MLFLOW_EXPERIMENT_NAME": "flowers"}
    clone.tool("record", **named)  # as 2.0.0 called it
    clone.set({"a": 2})
    clone.dvc("repro", "-q")
    assert clone.tool("record", MLFLOW_TRACKING_URI=address).out.startswith("flowers: added")
    other.git("remote", "add", "origin", "git@example.org:them/flowers.git")
    other.set({"a": 3})
    other.dvc("repro", "-q")
    assert other.tool("record", MLFLOW_TRACKING_URI=address).out.startswith("them/flowers: added")
    assert experiments(address) == ["flowers", "them/flowers"]


def test_own_store(made: Repository, tmp_path: Path) -> None:
    """A repository's own store keeps the name that it has when a remote is added."""
    project = made.copy(tmp_path / "project")
    project.record()
    project.git("remote", "add", "origin", OURS)
    project.set({"a": 2})
    project.dvc("repro", "-q")
    assert project.record().out.startswith("project: added")
    assert len({row.info.experiment_id for row in project.rows()}) == 1
