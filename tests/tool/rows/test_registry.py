"""MLflow shows what git's tags register: GTO's versions, and its stages as aliases."""

import json
import shutil
from pathlib import Path
from typing import Any

import mlflow
import pytest

from dvc_mlflow.pipeline.tags import GTO_COMMIT, GTO_TAG, ROW
from support.following import following
from support.locked import locked
from support.pipelines import LOADER, MODEL, Repository
from support.promoting import aliases, gto, registered, registrable, registry_lines

pytestmark = pytest.mark.pipeline


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """A pipeline with two committed results, for all tests: copy it."""
    return registrable(tmp_path_factory.mktemp("made"))


@pytest.fixture
def project(made: Repository, tmp_path: Path) -> Repository:
    """A copy of that pipeline with its store."""
    return made.copy_with_rows(tmp_path / "project")


def is_registered(*versions: str) -> list[str]:
    """Return what is said when these versions of `clf` are added."""
    return [f"models:/clf: {version} is registered" for version in versions]


@pytest.mark.rest
@pytest.mark.versions
def test_versions_and_stages(project: Repository) -> None:
    """Versions and stages made by `gto` alone are shown, and aliases follow git's stages.

    If the store is lost, the same versions have the same aliases, and the same bytes. A stage that
    git takes back stays an alias, and a line says so.
    """
    gto(project, "register", "clf", "HEAD~", "-m", "The first one")
    gto(project, "register", "clf")
    gto(project, "assign", "clf", "HEAD~", "--stage", "champion")
    expected = [*is_registered("v0.0.1", "v0.0.2"), "models:/clf@champion is v0.0.1"]
    assert registry_lines(project, "--dry-run")[0] == [f"would be so: {line}" for line in expected]
    assert registered(project) == {}
    assert registry_lines(project) == (expected, [])
    first, second = project.rows()
    version = registered(project)["v0.0.1"]
    assert version.description == "The first one"
    assert version.tags == {
        ROW: first.info.run_id,
        GTO_COMMIT: project.git("rev-parse", "HEAD~"),
        GTO_TAG: "clf@v0.0.1",
    }
    assert registered(project)["v0.0.2"].tags[ROW] == second.info.run_id
    gto(project, "assign", "clf", "--version", "v0.0.2", "--stage", "champion")
    assert registry_lines(project) == (["models:/clf@champion is v0.0.2"], [])
    assert registry_lines(project) == ([], [])
    check_lost(project)
    gto(project, "deprecate", "clf", "v0.0.2", "champion")
    # The stage is back where it was assigned before, as `gto show` says.
    assert registry_lines(project) == (["models:/clf@champion is v0.0.1"], [])
    gto(project, "deprecate", "clf", "v0.0.1", "champion")
    kept = "models:/clf@champion is version 1 in MLflow; git assigns it no longer"
    assert registry_lines(project) == ([], [f"clf#champion#1: {kept}"])
    gto(project, "deprecate", "clf", "v0.0.2")
    assert registry_lines(project) == ([], [f"clf#champion#1: {kept}"])
    assert {*registered(project)} == {"v0.0.1", "v0.0.2"}
    assert not [*project.path.rglob("*.ran")]


def check_lost(project: Repository) -> None:
    """Check that a lost store shows the same, with the bytes that DVC has."""
    lost = project.copy(project.path.with_name("lost"))
    assert lost.record("--all").status == 0
    assert aliases(lost) == aliases(project) == {"champion": "v0.0.2"}
    lost.dvc("artifacts", "get", ".", "clf", "--stage", "champion", "-o", "champion.txt")
    mlflow.set_tracking_uri(f"sqlite:///{lost.path}/mlflow.db")
    served = mlflow.artifacts.download_artifacts("models:/clf@champion")
    (package,) = Path(served).rglob("model.txt")
    three = [lost.path / "champion.txt", package, lost.path / "model.txt"]
    assert [path.read_bytes() for path in three] == [b"1\nrate: 2\n"] * 3


def test_what_people_made(project: Repository) -> None:
    """Versions and aliases that people made stay; one line says where git says otherwise."""
    mlflow.set_tracking_uri(f"sqlite:///{project.path}/mlflow.db")
    client = project.client
    (model,) = project.models(project.rows()[0])
    mlflow.register_model(f"models:/{model}", "clf")
    for alias in ("champion", "mine"):
        client.set_registered_model_alias("clf", alias, "1")
    gto(project, "register", "clf", "HEAD~")
    gto(project, "register", "clf")
    gto(project, "assign", "clf", "HEAD~", "--stage", "champion")
    other = "clf#champion#1: models:/clf@champion is version 1 in MLflow; git says v0.0.1"
    assert registry_lines(project) == (is_registered("v0.0.1", "v0.0.2"), [other])
    assert registry_lines(project) == ([], [other])
    assert aliases(project) == {"champion": "1", "mine": "1"}
    client.delete_registered_model_alias("clf", "champion")
    assert registry_lines(project) == (["models:/clf@champion is v0.0.1"], [])
    client.set_registered_model_alias("clf", "champion", "3")  # somebody moves what was the tool's
    other = "clf#champion#1: models:/clf@champion is version 3 in MLflow; git says v0.0.1"
    assert registry_lines(project) == ([], [other])
    assert aliases(project) == {"champion": "v0.0.2", "mine": "1"}


def tag(project: Repository, name: str, commit: str = "HEAD") -> None:
    """Make a tag as a hostile colleague would: by git alone."""
    project.git("tag", "-f", "-a", "-m", "\x1b[31m<script>\a", name, commit)


def test_tags_that_lie(project: Repository) -> None:
    """A tag that cannot be shown hides no other; nothing runs, and nothing is overwritten.

    What is no model has no line.
    """
    gto(project, "register", "clf")
    names = ["clf#latest#2", "clf#v1#3", "clf#a/b#4", "nobody@v1.0.0", "a/b=x@v1.0.0"]
    for name in [*names, "two@v1.0.0", "two@v2.0.0", "two#champion#1"]:
        tag(project, name)
    tag(project, "clf@v9.9.9", "HEAD~2")
    tag(project, "blob@v1.0.0", "HEAD:dvc.yaml")
    for name in ("numbers@v1.0.0", "clf@v1", "clf@@v1.0.0", "-clf@v1.0.0", "'; rm -rf x;'@v1.0.0"):
        project.run("git", "tag", "-a", "-m", "x", "--", name, check=False)
    lines, notes = registry_lines(project)
    assert lines == is_registered("v0.0.1")
    assert notes[0].startswith("blob@v1.0.0: DVC's files cannot be read")
    assert notes[1:-1] == [
        "clf@v9.9.9: dvc.lock at its commit has no result of the model",
        "clf#a/b#4: MLflow allows no alias 'a/b'",
        "clf#latest#2: MLflow allows no alias 'latest'",
        "clf#v1#3: MLflow allows no alias 'v1'",
    ]
    assert notes[-1].startswith("two: two#champion#1: Multiple versions are not allowed")
    assert not [*project.path.rglob("*.ran")]


def test_what_cannot_be_shown(project: Repository) -> None:
    """A version that lacks a row has a line, and is shown once that is there.

    A model that somebody has deleted in MLflow is logged again.
    """
    gto(project, "register", "clf", "HEAD~")
    gto(project, "register", "clf")
    lost = project.copy(project.path.with_name("lost"))
    said = lost.record("--rev", "HEAD")
    assert "models:/clf: v0.0.2 is registered\n" in said.out
    cure = "`dvc-mlflow record --all` adds it"
    assert said.error == f"dvc-mlflow: clf@v0.0.1: MLflow has no row of its result; {cure}\n"
    said = lost.record("--all")
    assert "models:/clf: v0.0.1 is registered\n" in said.out
    assert said.error == ""
    for run in project.rows():
        project.client.delete_logged_model(project.models(run)[0])
    assert registry_lines(project) == (is_registered("v0.0.1", "v0.0.2"), [])


@pytest.mark.rest
def test_followed(project: Repository) -> None:
    """A follower shows what has changed in git's tags, once.

    A stage of a commit that is not registered is an alias, too; a commit has one version.
    """
    commit = project.git("rev-parse", "--short=7", "HEAD")
    with following(project) as follower:
        gto(project, "assign", "clf", "HEAD", "--stage", "champion", "--skip-registration")
        follower.wait_for(f"models:/clf@champion is {commit}\n")
        assert registry_lines(project) == ([], [])
        assert sum(is_registered(commit)[0] in line for line in follower.lines) == 1
    gto(project, "register", "clf")
    assert registry_lines(project) == ([], [])


@pytest.mark.rest
def test_folders(tmp_path: Path) -> None:
    """In a monorepo, a model's name is that of GTO: the folder of its dvc.yaml, and its key.

    A DVC project shows what is registered in its own folders, not in those of another project.
    A version whose commit does not say how to load it is shown as the checkout says; until that
    does, one line names the key.
    """
    project = locked(tmp_path / "project", {})
    project.add_store()
    stages = {"fit": {"cmd": "run", "outs": ["model.txt"]}}
    bare: dict[str, Any] = {"lstm": {"path": "model.txt", "type": "model"}}
    for folder in ("apps", "own"):
        files = {"loader.py": LOADER, "model.txt": f"{folder}\n"}
        locked(project.path / folder, stages, files=files, git=False, artifacts=bare)
    shutil.rmtree(project.path / "apps" / ".dvc")
    project.ran()
    project.write({"own/.dvc/config": ""})
    project.commit("The results")
    for folder, here in {"apps": ".", "own": "own"}.items():
        gto(project, "register", f"{folder}:lstm")
        said = project.record(folder=here)
        why = "MLflow cannot load it; artifacts.lstm.meta needs a loader_module"
        assert said.error == f"dvc-mlflow: {folder}=lstm@v0.0.1: {why}\n"
        declared = {"stages": stages, "artifacts": {"lstm": {**bare["lstm"], "meta": MODEL}}}
        project.write({f"{folder}/dvc.yaml": json.dumps(declared)})
        lines = [
            line for line in project.record(folder=here).out.splitlines() if "models:/" in line
        ]
        assert lines == [f"models:/{folder}-lstm: v0.0.1 is registered"]
        mlflow.set_tracking_uri(f"sqlite:///{project.path}/mlflow.db")
        assert mlflow.pyfunc.load_model(f"models:/{folder}-lstm/1").predict([1]) == [f"{folder}\n"]
