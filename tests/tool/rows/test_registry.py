"""MLflow shows what git's tags register: GTO's versions, and its stages as aliases."""

from pathlib import Path

import mlflow
import pytest

from support.pipelines import Repository
from support.promoting import (
    aliases,
    gto,
    registered,
    registrable,
    registry_lines,
)

pytestmark = [
    pytest.mark.pipeline,
    pytest.mark.versions,
    pytest.mark.filterwarnings("ignore"),  # warnings from MLflow
]


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """A pipeline with two committed results, for all tests: copy it."""
    return registrable(tmp_path_factory.mktemp("made"))


@pytest.fixture
def project(made: Repository, tmp_path: Path) -> Repository:
    """A copy of that pipeline with its store."""
    return made.copy_with_rows(tmp_path / "project")


def test_versions_and_stages(project: Repository) -> None:
    """Versions and stages made by `gto` alone are shown, and follow it, whatever it does then.

    If the store is lost, the same versions have the same aliases, and the same bytes. What git
    takes back stays in MLflow, and is named until somebody deletes it there.
    """
    gto(project, "register", "clf", "HEAD~", "-m", "The first one\n\nIts body")
    gto(project, "register", "clf")
    gto(project, "assign", "clf", "HEAD~", "--stage", "champion")
    added = "models:/clf: v0.0.1 is version 1, v0.0.2 is version 2"
    alias = "models:/clf@champion is version 1, v0.0.1 in git"
    dry, _ = registry_lines(project, "--dry-run")
    assert dry == [f"would be so: {line}" for line in (added, alias)]
    assert registered(project) == {}
    assert registry_lines(project) == ([added, alias], [])
    first, second = project.rows()
    version = registered(project)["v0.0.1"]
    date = project.git("for-each-ref", "--format=%(taggerdate:iso-strict)", "refs/tags/clf@v0.0.1")
    assert version.description == "The first one\n\nIts body"
    assert version.tags == {
        "dvc.row": first.info.run_id,
        "gto.version": "v0.0.1",
        "gto.commit": project.git("rev-parse", "HEAD~"),
        "gto.tag": "clf@v0.0.1",
        "gto.author": "Tester <tester@example.org>",
        "gto.date": date.replace("Z", "+00:00"),
    }
    assert registered(project)["v0.0.2"].tags["dvc.row"] == second.info.run_id
    gto(project, "assign", "clf", "--version", "v0.0.2", "--stage", "champion")
    assert registry_lines(project) == (["models:/clf@champion is version 2, v0.0.2 in git"], [])
    assert registry_lines(project) == ([], [])
    assert len(project.rows()) == 2
    check_lost(project)

    gto(project, "deprecate", "clf", "v0.0.2", "champion")
    # The stage is back where it was assigned before, as `gto show` says.
    moved = (
        "clf#champion#1: models:/clf@champion is version 2, as the tag clf#champion#2 says; "
        "git says v0.0.1, version 1"
    )
    assert registry_lines(project) == ([], [moved])
    gto(project, "deprecate", "clf", "v0.0.1", "champion")
    stays = "models:/clf@champion stays, though git assigns it no longer; delete it in MLflow"
    assert registry_lines(project) == ([], [f"clf#champion#2: {stays}"])
    gto(project, "deprecate", "clf", "v0.0.2")
    gone = "models:/clf version 2 stays, though git took it back; delete it in MLflow"
    assert registry_lines(project) == ([], [f"clf@v0.0.2: {gone}", f"clf#champion#2: {stays}"])
    project.client.delete_registered_model_alias("clf", "champion")
    project.client.delete_model_version("clf", "2")
    assert registry_lines(project) == ([], [])
    assert not [*project.path.rglob("*.ran")]


def check_lost(project: Repository) -> None:
    """Check that a lost store shows the same, with the bytes that DVC has."""
    lost = project.copy(project.path.with_name("lost"))
    assert lost.record("--all").status == 0
    assert aliases(lost) == aliases(project) == {"champion": "v0.0.2"}
    commits = [
        {own: version.tags["gto.commit"] for own, version in registered(each).items()}
        for each in (project, lost)
    ]
    assert commits[0] == commits[1]
    lost.dvc("artifacts", "get", ".", "clf", "--stage", "champion", "-o", "champion.txt")
    mlflow.set_tracking_uri(f"sqlite:///{lost.path}/mlflow.db")
    served = mlflow.artifacts.download_artifacts("models:/clf@champion")
    (package,) = Path(served).rglob("model.txt")
    three = [lost.path / "champion.txt", package, lost.path / "model.txt"]
    assert [path.read_bytes() for path in three] == [b"1\nrate: 2\n"] * 3
