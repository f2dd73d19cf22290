"""MLflow shows what git's tags register: GTO's versions, and its stages as aliases."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import mlflow
import pytest

from support.clone import environment
from support.following import following
from support.pipelines import LOADER, MODEL, Repository, repository
from support.promoting import aliases, gto, own_name, registered, registrable, registry_lines
from support.servers import serving

pytestmark = [
    pytest.mark.pipeline,
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


def is_registered(*versions: str) -> list[str]:
    """Return what is said when these versions of `clf` are added."""
    return [f"models:/clf: {version} is registered" for version in versions]


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
        "dvc.row": first.info.run_id,
        "gto.commit": project.git("rev-parse", "HEAD~"),
        "gto.tag": "clf@v0.0.1",
    }
    assert registered(project)["v0.0.2"].tags["dvc.row"] == second.info.run_id
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


def test_unregistered(project: Repository) -> None:
    """A stage of a commit that is not registered is an alias, too; a commit has one version."""
    gto(project, "assign", "clf", "HEAD", "--stage", "champion", "--skip-registration")
    commit = project.git("rev-parse", "--short=7", "HEAD")
    expected = [*is_registered(commit), f"models:/clf@champion is {commit}"]
    assert registry_lines(project) == (expected, [])
    gto(project, "register", "clf")
    assert registry_lines(project) == ([], [])


def test_what_people_made(project: Repository) -> None:
    """Versions and aliases that people made stay; one line says where git says otherwise."""
    mlflow.set_tracking_uri(f"sqlite:///{project.path}/mlflow.db")
    client = project.client
    (model,) = project.rows()[0].outputs.model_outputs
    mlflow.register_model(f"models:/{model.model_id}", "clf")
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
    names += ["two@v1.0.0", "two@v2.0.0", "two#champion#1"]
    for name in names:
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


@pytest.mark.rest
def test_moved_tag(project: Repository) -> None:
    """A tag that was moved to another commit is one more version; the first one stays."""
    gto(project, "register", "clf")
    gto(project, "assign", "clf", "HEAD", "--stage", "champion")
    assert len(registry_lines(project)[0]) == 2
    then = registered(project)["v0.0.1"].tags
    tag(project, "clf@v0.0.1", "HEAD~")
    assert registry_lines(project) == (is_registered("v0.0.1"), [])
    first, second = sorted(project.client.search_model_versions(), key=lambda v: int(v.version))
    assert (first.tags, second.tags["gto.tag"]) == (then, "clf@v0.0.1")
    assert project.client.get_model_version_by_alias("clf", "champion").version == first.version
    assert registry_lines(project) == ([], [])


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
        project.client.delete_logged_model(run.outputs.model_outputs[0].model_id)
    assert registry_lines(project) == (is_registered("v0.0.1", "v0.0.2"), [])


@pytest.mark.rest
def test_no_loader(tmp_path: Path) -> None:
    """A version whose commit does not say how to load it is shown as the checkout says.

    Its bytes come from DVC's cache. Until the checkout says it, one line names the key.
    """
    project = repository(tmp_path / "project", FIT["stages"], files={"in.txt": "1\n"})
    bare = {"lstm": {"path": "model.txt", "type": "model"}}
    project.write({"loader.py": LOADER, "dvc.yaml": json.dumps({**FIT, "artifacts": bare})})
    for text in ("1\n", "2\n"):
        project.write({"in.txt": text})
        project.dvc("repro", "-q")
        project.commit("A result")
        gto(project, "register", "lstm")
    why = "MLflow cannot load it; artifacts.lstm.meta needs a loader_module"
    lines, notes = registry_lines(project, "--all")
    assert (lines, notes) == ([], [f"lstm@v0.0.1, lstm@v0.0.2: {why}"])
    project.write({"dvc.yaml": json.dumps(FIT)})
    lines, notes = registry_lines(project)
    assert len(lines) == 2
    assert notes == []
    mlflow.set_tracking_uri(f"sqlite:///{project.path}/mlflow.db")
    assert mlflow.pyfunc.load_model("models:/lstm/1").predict([1]) == ["1\n"]


PROGRAM = """
import sys
from dvc_mlflow.__main__ import main

sys.exit(main(["record"]) or "gto" in sys.modules)
"""


@pytest.mark.rest
def test_costs_nothing(project: Repository) -> None:
    """GTO, whose import takes a third of a second, is imported only if git has tags for it."""
    project.git("tag", "-a", "-m", "x", "v1.0.0")
    project.run(sys.executable, "-W", "ignore", "-c", PROGRAM)  # fails unless it exits with 0


@pytest.mark.rest
def test_followed(project: Repository) -> None:
    """A follower shows what has changed in git's tags, once."""
    with following(project) as follower:
        gto(project, "register", "clf")
        gto(project, "assign", "clf", "HEAD", "--stage", "champion")
        follower.wait_for("models:/clf@champion is v0.0.1\n")
        assert project.record().status == 0
        assert sum(is_registered("v0.0.1")[0] in line for line in follower.lines) == 1


FIT: dict[str, Any] = {
    "stages": {
        "fit": {
            "cmd": """cp in.txt model.txt; echo '{"score": 1}' > score.json""",
            "deps": ["in.txt"],
            "outs": ["model.txt"],
            "metrics": [{"score.json": {"cache": False}}],
            "meta": {"mlflow": {"prefix": "", "promote": ["score"], "data": ["in.txt"]}},
        }
    },
    "artifacts": {"lstm": {"path": "model.txt", "type": "model", "meta": MODEL}},
}
"""The dvc.yaml of a folder in a monorepo."""


@pytest.mark.rest
def test_folders(tmp_path: Path) -> None:
    """In a monorepo, a model's name is that of GTO: the folder of its dvc.yaml, and its key.

    A DVC project shows what is registered in its own folders, not in those of another project.
    """
    names = {"apps/small": "apps-small-lstm", "own": "own-lstm"}
    project = repository(tmp_path / "project", {})
    for folder in names:
        files = {"dvc.yaml": json.dumps(FIT), "loader.py": LOADER, "in.txt": f"{folder}\n"}
        project.write({f"{folder}/{name}": text for name, text in files.items()})
    (project.path / "dvc.yaml").unlink()
    project.dvc("--cd", "own", "init", "-q", "--subdir")
    for folder in names:
        project.dvc("--cd", folder, "repro", "-q")
    project.commit("The results")
    mlflow.set_tracking_uri(f"sqlite:///{project.path}/mlflow.db")
    for folder, name in names.items():
        before = {run.info.run_id for run in project.rows()}
        assert "models:/" not in project.record(folder=folder).out
        (run_id,) = {run.info.run_id for run in project.rows()} - before
        said = project.tool("promote", run_id, folder=folder, **environment())
        tags, *lines, _ = said.out.splitlines()
        assert tags.startswith(f"{folder}=lstm@v0.0.1 and {folder}=lstm#champion#1: ")
        expected = [f"models:/{name}: v0.0.1 is registered", f"models:/{name}@champion is v0.0.1"]
        assert (lines, said.error) == (expected, "")
        loaded = mlflow.pyfunc.load_model(f"models:/{name}@champion")
        assert loaded.predict([1]) == [f"{folder}\n"]


@pytest.mark.rest
def test_two_clones(project: Repository, tmp_path: Path) -> None:
    """On a server, any clone shows what git's tags say; one that lacks a tag moves no alias back.

    A clone needs nothing of DVC's cache for it.
    """
    bare = tmp_path / "bare"
    project.git("clone", "-q", "--bare", ".", f"{bare}")
    project.git("remote", "add", "origin", f"{bare}")
    subprocess.run(["git", "clone", "-q", bare, tmp_path / "b" / "project"], check=True)
    theirs = Repository(tmp_path / "b" / "project")
    with serving(Repository(tmp_path), "server", "--workers", "1") as server:

        def tool(clone: Repository, *words: str) -> tuple[list[str], list[str]]:
            said = clone.tool(*words, **environment(MLFLOW_TRACKING_URI=server))
            found = (said.out.splitlines(), said.error.splitlines())
            lines, notes = ([line for line in each if "models:/" in line] for each in found)
            return lines, notes

        client = mlflow.MlflowClient(server)
        tool(project, "record", "--all")
        found = [each.experiment_id for each in client.search_experiments()]
        scores = {r.data.metrics["test/score"]: r.info.run_id for r in client.search_runs(found)}
        gto(project, "register", "clf", "HEAD~")
        gto(project, "assign", "clf", "HEAD~", "--stage", "champion")
        project.git("push", "-q", "origin", "--tags")
        theirs.git("fetch", "-q", "--tags")
        expected = [*is_registered("v0.0.1"), "models:/clf@champion is v0.0.1"]
        assert tool(theirs, "record")[0] == expected
        expected = [*is_registered("v0.0.2"), "models:/clf@champion is v0.0.2"]
        assert tool(project, "promote", scores[2]) == (expected, [])
        assert tool(project, "promote", scores[1]) == ([], [])
        lines, notes = tool(theirs, "record")
        assert lines == []
        assert ["is version 2 in MLflow; git says v0.0.1" in note for note in notes] == [True]
        assert own_name(client.get_model_version_by_alias("clf", "champion")) == "v0.0.2"
