"""After a store or DVC's cache was lost, `record` makes the same table again."""

from pathlib import Path

import pytest

from support.pipelines import ARTIFACTS, LOADER, Repository, finished
from support.rebuilding import STAGES, contents, undisturbed

pytestmark = [
    pytest.mark.pipeline,
    pytest.mark.filterwarnings("ignore"),  # warnings from MLflow
]


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """A pipeline with a model and two evaluations that has run once: `copy` it."""
    folder = tmp_path_factory.mktemp("made")
    return finished(folder / "project", STAGES, files={"loader.py": LOADER}, artifacts=ARTIFACTS)


def test_lost(made: Repository, tmp_path: Path) -> None:
    """After mlflow.db and mlartifacts/ were lost, `record` makes the same table again.

    Files that DVC's cache has lost are read from the workspace, and vice versa.
    """
    expected = undisturbed(made.copy(tmp_path / "project"))
    for lost in (".dvc/cache", "model.txt"):
        project = made.copy(tmp_path / f"without {lost.rpartition('/')[2]}" / "project")
        project.run("rm", "-r", lost)
        assert project.record().status == 0
        assert contents(project) == expected
