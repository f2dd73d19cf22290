"""The default experiment is named after the git remote, so that all clones share it."""

from pathlib import Path

import pytest
from mlflow import MlflowClient

from dvc_mlflow.place import default_experiment
from support.clone import Clone
from support.locked import Locked, locked
from support.pipelines import evaluate
from support.stores import rows_of

pytestmark = [
    pytest.mark.pipeline,
    pytest.mark.filterwarnings("ignore"),  # warnings from MLflow
]

OURS = "git@example.org:us/flowers.git"


@pytest.fixture
def made(tmp_path: Path) -> Locked:
    """A repository with one result: `copy` it."""
    made = locked(tmp_path / "project", {"a": evaluate("a", "raw.txt")}, files=score(1))
    made.commit("The results")
    return made


def score(value: int) -> dict[str, str]:
    """Return what the stage writes."""
    return {"a.json": f'{{"score": {value}}}\n'}


def test_addresses(tmp_path: Path) -> None:
    """Its owner and name count, however it is reached; of a folder, its name."""
    project = Clone(tmp_path / "project")
    project.path.mkdir()
    project.git("init", "-q")
    project.git("remote", "add", "origin", OURS)
    names = {
        OURS: "us/flowers",
        "https://user:token@example.org/us/flowers": "us/flowers",
        "ssh://git@example.org:2222/us/flowers.git/": "us/flowers",
        "https://example.org/group/us/flowers.git": "group/us/flowers",
        "/srv/git/flowers.git": "flowers",
        "../flowers.git": "flowers",
        "file:///srv/git/flowers.git": "flowers",
        "https://example.org": "project",
    }
    found = {}
    for url in names:
        project.git("remote", "set-url", "origin", url)
        found[url] = default_experiment(project.path)
        assert default_experiment(project.path, "sub") == f"{found[url]}/sub"
    assert found == names


def shared(project: Locked) -> str:
    """Return the address of a new store."""
    project.add_store()
    place = (project.path / "mlflow.db").rename(project.path.with_name("rows.db"))
    return f"sqlite:///{place}"


def experiments(address: str) -> list[str]:
    """Return the names of the experiments with rows."""
    client = MlflowClient(address)
    ids = {row.info.experiment_id for row in rows_of(address)}
    return sorted(client.get_experiment(each).name for each in ids)


def test_two_colleagues(made: Locked, tmp_path: Path) -> None:
    """Clones in folders of other names share one experiment, and each result is in it once."""
    address = shared(made)
    for name in ("mine", "yours"):
        clone = made.copy(tmp_path / name)
        clone.git("remote", "add", "origin", OURS)
        assert clone.tool("record", "--all", MLFLOW_TRACKING_URI=address).status == 0
    assert experiments(address) == ["us/flowers"]
    assert len(rows_of(address)) == 1


def test_own_store(made: Locked) -> None:
    """A repository's own store keeps the name that it has when a remote is added."""
    made.add_store()
    made.record()
    made.git("remote", "add", "origin", OURS)
    made.again(score(2), {"a": 2})
    assert made.record().out.startswith("project: added")
    assert len({row.info.experiment_id for row in made.rows()}) == 1
