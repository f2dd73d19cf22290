"""After a store or DVC's cache was lost, `record` makes the same table again."""

import shutil
from typing import Any

import pytest

from support.pipelines import LOADER, Repository, finished
from support.rebuilding import STAGES, contents, in_child, undisturbed

pytestmark = [
    pytest.mark.pipeline,
    pytest.mark.filterwarnings("ignore"),  # warnings from MLflow
]


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """A pipeline with a model and two evaluations that has run once: `copy` it."""
    folder = tmp_path_factory.mktemp("made")
    return finished(folder / "project", STAGES, files={"loader.py": LOADER})


@pytest.fixture(scope="session")
def expected(made: Repository, tmp_path_factory: pytest.TempPathFactory) -> list[Any]:
    """What a store contains after an undisturbed `record` of that pipeline."""
    return undisturbed(made.copy(tmp_path_factory.mktemp("expected") / "project"))


def test_lost_store(project: Repository, expected: list[Any]) -> None:
    """After mlflow.db and mlartifacts/ were lost, `record` makes the same table again."""
    for _ in range(2):
        assert in_child(lambda: project.record().status) == 0
        assert contents(project) == expected
        project.remove_store()


def test_lost_files(project: Repository, expected: list[Any]) -> None:
    """Files that DVC's cache has lost are read from the workspace, and vice versa."""
    shutil.move(project.path / ".dvc" / "cache", project.path / "cache")
    assert in_child(lambda: project.record().status) == 0
    assert contents(project) == expected
    shutil.move(project.path / "cache", project.path / ".dvc" / "cache")
    project.remove_store()
    (project.path / "model.txt").unlink()
    assert in_child(lambda: project.record().status) == 0
    assert contents(project) == expected
