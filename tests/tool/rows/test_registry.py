"""MLflow shows what git's tags register: GTO's versions, and its stages as aliases."""

import hashlib
import sys
from pathlib import Path

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

NOTHING = "nothing to do: MLflow has this result\n"


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """A pipeline with two committed results, for all tests: copy it."""
    return registrable(tmp_path_factory.mktemp("made"))


@pytest.fixture
def project(made: Repository, tmp_path: Path) -> Repository:
    """A copy of that pipeline with its store."""
    return made.copy_with_rows(tmp_path / "project")


def test_versions_and_stages(project: Repository) -> None:
    """Versions and stages made by `gto` alone are shown, and follow it, whatever it does then."""
    assert registry_lines(project) == ([], [])
    gto(project, "register", "clf", "HEAD~", "-m", "The first one\n\nIts body")
    gto(project, "register", "clf")
    gto(project, "assign", "clf", "HEAD~", "--stage", "champion")
    added = "models:/clf: v0.0.1 is version 1, v0.0.2 is version 2"
    alias = "models:/clf@champion is version 1, v0.0.1 in git"
    dry, _ = registry_lines(project, "--dry-run")
    assert dry == [f"would be so: {line}" for line in (added, alias)]
    assert registered(project) == {}
    assert registry_lines(project) == ([added, alias], [])
    assert project.record().out.startswith(NOTHING)
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
    gto(project, "deprecate", "clf", "v0.0.2", "champion")
    # The stage is back where it was assigned before, as `gto show` says.
    assert registry_lines(project) == (["models:/clf@champion is version 1, v0.0.1 in git"], [])
    gto(project, "deprecate", "clf", "v0.0.1", "champion")
    gone = "models:/clf@champion: deleted, as git assigns this stage no longer"
    assert registry_lines(project) == ([gone], [])
    gto(project, "deprecate", "clf", "v0.0.1")
    assert registry_lines(project) == (
        ["models:/clf version 1: deleted, as git has v0.0.1 no longer"],
        [],
    )
    gto(project, "assign", "clf", "--version", "v0.0.2", "--stage", "prod")
    assert registry_lines(project) == (["models:/clf@prod is version 2, v0.0.2 in git"], [])
    gto(project, "deprecate", "clf")
    assert len(registry_lines(project)[0]) == 2
    assert (registered(project), aliases(project)) == ({}, {})
    assert len(project.rows()) == 2
    assert not [*project.path.rglob("*.ran")]


def test_lost_store(project: Repository) -> None:
    """If the store is lost, the same versions have the same aliases, and the same bytes."""
    gto(project, "register", "clf", "HEAD~")
    gto(project, "register", "clf")
    gto(project, "assign", "clf", "--version", "v0.0.2", "--stage", "champion")
    gto(project, "assign", "clf", "--version", "v0.0.1", "--stage", "old")
    registry_lines(project)
    before = aliases(project), {own: v.tags["gto.commit"] for own, v in registered(project).items()}
    assert before[0] == {"champion": "v0.0.2", "old": "v0.0.1"}
    project.remove_store()
    project.run("dvc-mlflow", "record", "--all")
    lost = Repository(project.path.rename(project.path.with_name("other")))
    lost.record()
    after = aliases(lost), {own: v.tags["gto.commit"] for own, v in registered(lost).items()}
    assert after == before
    for alias, text in {"champion": b"1\nrate: 2\n", "old": b"1\nrate: 1\n"}.items():
        lost.dvc("artifacts", "get", ".", "clf", "--stage", alias, "-o", f"{alias}.txt")
        code = f"print(mlflow.artifacts.download_artifacts('models:/clf@{alias}'))"
        address = f"sqlite:///{lost.path}/mlflow.db"
        program = f"import mlflow; mlflow.set_tracking_uri('{address}'); {code}"
        served = lost.run(sys.executable, "-W", "ignore", "-c", program).stdout.splitlines()[-1]
        (package,) = Path(served).rglob("model.txt")
        md5 = hashlib.md5(text, usedforsecurity=False).hexdigest()
        cached = lost.path / ".dvc/cache/files/md5" / md5[:2] / md5[2:]
        three = [lost.path / f"{alias}.txt", package, cached]
        assert [path.read_bytes() for path in three] == [text] * 3
