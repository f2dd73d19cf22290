"""Tags in git that were deleted, moved, or lie, and what people made in MLflow's registry."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import mlflow
import pytest

from support.clone import environment
from support.following import following
from support.locked import locked, trained
from support.pipelines import LOADER, MODEL, Repository, repository
from support.promoting import (
    NAMED,
    aliases,
    gto,
    registered,
    registrable,
    registry_lines,
)
from support.servers import serving

pytestmark = [
    pytest.mark.pipeline,
    pytest.mark.filterwarnings("ignore"),  # warnings from MLflow
]

FIT: dict[str, Any] = {
    "stages": {
        "fit": {
            "cmd": """cp in.txt model.txt; echo '{"score": 1}' > score.json""",
            "deps": ["in.txt"],
            "outs": ["model.txt"],
            "metrics": [{"score.json": {"cache": False}}],
        }
    },
    "artifacts": {"lstm": {"path": "model.txt", "type": "model", "meta": MODEL}},
}
"""The dvc.yaml of a folder in a monorepo."""
NOTHING = "nothing to do: MLflow has this result\n"


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """A pipeline with two committed results, for all tests: copy it."""
    return registrable(tmp_path_factory.mktemp("made"))


@pytest.fixture
def project(made: Repository, tmp_path: Path) -> Repository:
    """A copy of that pipeline with its store."""
    return made.copy_with_rows(tmp_path / "project")


def test_unregistered(project: Repository) -> None:
    """A stage of a commit that is not registered is an alias, too, until a version is there."""
    gto(project, "assign", "clf", "HEAD", "--stage", "champion", "--skip-registration")
    commit = project.git("rev-parse", "HEAD")
    lines = [f"is version 1, {commit[:7]} in git", f"{commit[:7]} is version 1"]
    assert registry_lines(project) == (
        [f"models:/clf: {lines[1]}", f"models:/clf@champion {lines[0]}"],
        [],
    )
    assert aliases(project) == {"champion": commit}
    gto(project, "register", "clf")
    lines, notes = registry_lines(project)
    assert (lines, notes) == ([], [])
    assert aliases(project) == {"champion": "v0.0.1"}


@pytest.mark.rest
def test_what_people_made(project: Repository) -> None:
    """Versions and aliases that people made stay, and are named where they contradict git."""
    mlflow.set_tracking_uri(f"sqlite:///{project.path}/mlflow.db")
    client = project.client
    first, second = (run.outputs.model_outputs[0].model_id for run in project.rows())
    mlflow.register_model(f"models:/{first}", "clf")
    for alias in ("champion", "mine"):
        client.set_registered_model_alias("clf", alias, "1")
    gto(project, "register", "clf")
    gto(project, "assign", "clf", "HEAD", "--stage", "champion")
    contradiction = (
        "clf#champion#1: models:/clf@champion is version 1, as somebody chose in MLflow; "
        "git says v0.0.1, version 2"
    )
    assert registry_lines(project) == (["models:/clf: v0.0.1 is version 2"], [contradiction])
    assert registry_lines(project) == ([], [contradiction])
    assert aliases(project) == {"champion": "1", "mine": "1"}
    client.delete_registered_model_alias("clf", "champion")
    assert registry_lines(project) == (["models:/clf@champion is version 2, v0.0.1 in git"], [])
    assert second == registered(project)["v0.0.1"].source.removeprefix("models:/")


def tag(project: Repository, name: str, commit: str = "HEAD", message: str = "x") -> None:
    """Make a tag as a hostile colleague would: by git alone."""
    project.git("tag", "-f", "-a", "-m", message, name, commit)


def test_tags_that_lie(project: Repository) -> None:
    """Each tag that cannot be shown is one line; nothing runs, and nothing is overwritten."""
    gto(project, "register", "clf")
    gto(project, "assign", "clf", "HEAD", "--stage", "champion")
    assert len(registry_lines(project)[0]) == 2
    before = registered(project)["v0.0.1"].tags, aliases(project)
    lies = [
        "clf#latest#2",
        "clf#v1#3",
        "clf#a/b#4",
        "nobody@v1.0.0",
        "a/b=x@v1.0.0",
        "given@v1.0.0",
    ]
    for name in lies:
        tag(project, name)
    tag(project, "nobody@v2.0.0", "HEAD~")
    tag(project, "clf@v9.9.9", "HEAD~2", "\x1b[31m<script>\a")
    tag(project, "blob@v1.0.0", "HEAD:dvc.yaml")
    tag(project, "two@v1.0.0")
    tag(project, "two@v2.0.0")
    tag(project, "two#champion#1")
    for name in ("numbers@v1.0.0", "clf@v1", "clf@@v1.0.0", "-clf@v1.0.0", "'; rm -rf x;'@v1.0.0"):
        project.run("git", "tag", "-a", "-m", "x", "--", name, check=False)
    lines, notes = registry_lines(project)
    assert lines == []
    assert notes[:-1] == [
        "a/b=x@v1.0.0: dvc.yaml at its commit has no 'a/b:x' in artifacts",
        notes[1] if notes[1].startswith("blob@v1.0.0: commit ") else "",
        "clf@v9.9.9: its commit has no result of stage train: dvc.lock has no result of it",
        "clf#a/b#4: MLflow allows no alias 'a/b'",
        "clf#latest#2: MLflow allows no alias 'latest'",
        "clf#v1#3: MLflow allows no alias 'v1'",
        "given@v1.0.0: no stage of dvc.yaml at its commit makes 'given'",
        "nobody@v1.0.0 and 1 more: dvc.yaml at its commit has no 'nobody' in artifacts",
    ]
    assert notes[-1].startswith("two#champion#1: Multiple versions are not allowed")
    assert (registered(project)["v0.0.1"].tags, aliases(project)) == before
    assert registered(project).keys() == {"v0.0.1"}
    assert not [*project.path.rglob("*.ran")]


@pytest.mark.rest
def test_moved_tag(project: Repository) -> None:
    """A tag that was moved to another commit changes nothing in MLflow, and is named."""
    gto(project, "register", "clf")
    gto(project, "assign", "clf", "HEAD", "--stage", "champion")
    assert len(registry_lines(project)[0]) == 2
    before = registered(project)["v0.0.1"].tags, aliases(project)
    now, then = (project.git("rev-parse", "--short=7", name) for name in ("HEAD~", "HEAD"))
    tag(project, "clf@v0.0.1", "HEAD~")
    cure = "delete that version in MLflow to show git's"
    moved = f"models:/clf version 1 shows its commit {then}, git has it at {now}; {cure}"
    assert registry_lines(project) == ([], [f"clf@v0.0.1: {moved}"])
    assert (registered(project)["v0.0.1"].tags, aliases(project)) == before
    project.client.delete_model_version("clf", "1")
    lines, notes = registry_lines(project)
    # The stage is where it was, so GTO takes that commit for a version without a name.
    assert lines == [
        f"models:/clf: {then} is version 2, v0.0.1 is version 3",
        f"models:/clf@champion is version 2, {then} in git",
    ]
    assert notes == []
    assert registered(project)["v0.0.1"].tags["gto.commit"] == project.git("rev-parse", "HEAD~")


@pytest.mark.rest
def test_rows_that_lack(project: Repository) -> None:
    """Versions without a row in MLflow share one line, and are shown once the rows are there."""
    gto(project, "register", "clf", "HEAD~")
    gto(project, "register", "clf")
    lost = project.copy(project.path.with_name("lost"))
    said = lost.record()
    assert "models:/clf: v0.0.2 is version 1\n" in said.out
    cure = "`dvc-mlflow record --all` adds what it can read"
    assert said.error == f"dvc-mlflow: clf@v0.0.1: MLflow has no row of its result; {cure}\n"
    said = lost.record("--all")
    assert "models:/clf: v0.0.1 is version 2\n" in said.out
    assert said.error == ""


def test_metrics_elsewhere(tmp_path: Path) -> None:
    """A version is shown though the metrics of its model are only where DVC's cache is not."""
    score = '{"score": 1}\n'
    stages = {**NAMED, "test": {"cmd": "run", "deps": ["model.txt"], "metrics": ["test.json"]}}
    files = {"loader.py": LOADER, **trained(), "test.json": score}
    project = locked(tmp_path / "project", stages, files=files)
    project.commit("The results")
    project.add_store()
    gto(project, "register", "clf")
    for path in [project.path / "test.json", *(project.path / ".dvc/cache").rglob("*")]:
        if path.is_file() and path.read_text() == score:
            path.unlink()
    said = project.record("--all")
    assert "models:/clf: v0.0.1 is version 1\n" in said.out
    assert "test.json: not as in dvc.lock" in said.error
    assert "clf@" not in said.error


PROGRAM = """
import sys
from dvc_mlflow.__main__ import main

status = main(sys.argv[1:])
print("GTO was imported" if "gto" in sys.modules else "GTO was not imported")
"""


@pytest.mark.rest
def test_costs_nothing(project: Repository) -> None:
    """GTO, whose import takes a third of a second, is imported only if git has tags for it."""
    project.git("tag", "-a", "-m", "x", "v1.0.0")
    done = project.run(sys.executable, "-W", "ignore", "-c", PROGRAM, "record")
    assert "GTO was not imported" in done.stdout


@pytest.mark.rest
def test_followed(project: Repository) -> None:
    """A follower shows what has changed in git's tags, once."""
    with following(project) as follower:
        gto(project, "register", "clf")
        gto(project, "assign", "clf", "HEAD", "--stage", "champion")
        follower.wait_for("models:/clf@champion is version 1, v0.0.1 in git\n")
        assert project.record().status == 0
        assert sum("models:/clf: v0.0.1 is version 1" in line for line in follower.lines) == 1


@pytest.mark.rest
def test_no_model(tmp_path: Path) -> None:
    """A version whose row has no model that MLflow can serve is named with the reason."""
    artifacts = {"lstm": {"path": "model.txt", "type": "model"}}
    project = repository(tmp_path / "project", FIT["stages"], files={"in.txt": "1\n"})
    project.write({"dvc.yaml": json.dumps({**FIT, "artifacts": artifacts})})
    project.dvc("repro", "-q")
    project.commit("The results")
    gto(project, "register", "lstm")
    rule = "its row has no model that MLflow can serve; its meta in dvc.yaml must have a "
    assert registry_lines(project) == ([], [f"lstm@v0.0.1: {rule}loader_module"])
    project.client.delete_run(project.rows()[0].info.run_id)
    said = project.record().error
    cure = "`dvc-mlflow record --all --deleted` restores it"
    assert f"lstm@v0.0.1: MLflow has its row in the trash; {cure}\n" in said


@pytest.mark.rest
def test_folders(tmp_path: Path) -> None:
    """In a monorepo, a model's name is that of GTO: the folder of its dvc.yaml, and its key.

    A DVC project shows what is registered in its own folders, not in those of another project,
    and shows it again if the store is lost.
    """
    names = {"apps/small": "apps-small-lstm", "own": "own-lstm"}

    def check(project: Repository) -> None:
        mlflow.set_tracking_uri(f"sqlite:///{project.path}/mlflow.db")
        for folder, name in names.items():
            loaded = mlflow.pyfunc.load_model(f"models:/{name}@champion")
            assert loaded.predict([1]) == [f"{folder}\n"]
            got = (f"{folder}:lstm", "--stage", "champion", "-o", "got.txt", "--force")
            project.dvc("artifacts", "get", f"{project.path}", *got)
            assert (project.path / "got.txt").read_text() == f"{folder}\n"

    project = repository(tmp_path / "project", {})
    for folder in names:
        files = {"dvc.yaml": json.dumps(FIT), "loader.py": LOADER, "in.txt": f"{folder}\n"}
        project.write({f"{folder}/{name}": text for name, text in files.items()})
    (project.path / "dvc.yaml").unlink()
    project.dvc("--cd", "own", "init", "-q", "--subdir")
    for folder in names:
        project.dvc("--cd", folder, "repro", "-q")
    project.commit("The results")
    for name in ("apps/small:lstm", "own:lstm"):
        gto(project, "register", name)
        gto(project, "assign", name, "HEAD", "--stage", "champion")
    for folder, name in names.items():
        said = project.record(folder=folder)
        lines = [line for line in said.out.splitlines() if line.startswith("models:/")]
        assert (lines, said.error) == (
            [
                f"models:/{name}: v0.0.1 is version 1",
                f"models:/{name}@champion is version 1, v0.0.1 in git",
            ],
            "",
        )
    check(project)
    lost = project.copy(tmp_path / "lost" / "project")
    for folder in names:
        lost.record("--all", folder=folder)
    check(lost)


@pytest.mark.rest
def test_two_clones(project: Repository, tmp_path: Path) -> None:
    """Two clones on one server show one registry, whoever records first.

    A clone that lacks a tag changes nothing of what the tag said, and promotes nothing.
    """
    bare = tmp_path / "bare"
    project.git("clone", "-q", "--bare", ".", f"{bare}")
    project.git("remote", "add", "origin", f"{bare}")
    mine = project
    subprocess.run(["git", "clone", "-q", bare, tmp_path / "b" / "project"], check=True)
    theirs = Repository(tmp_path / "b" / "project")
    with serving(Repository(tmp_path), "server", "--workers", "1") as server:
        client = mlflow.MlflowClient(server)

        def tool(clone: Repository, *words: str) -> tuple[list[str], list[str]]:
            said = clone.tool(*words, MLFLOW_TRACKING_URI=server)
            lines = [line for line in said.out.splitlines() if line.startswith("models:/")]
            return lines, said.error.splitlines()

        def table() -> tuple[dict[str, str], dict[str, str]]:
            found = client.search_model_versions("name = 'clf'")
            numbers = {f"{v.version}": v.tags["gto.version"] for v in found}
            given = client.get_registered_model("clf").aliases.items()
            return numbers, {alias: numbers[f"{number}"] for alias, number in given}

        tool(mine, "record", "--all")
        gto(mine, "register", "clf", "HEAD~")
        gto(mine, "assign", "clf", "HEAD~", "--stage", "champion")
        tool(mine, "record")
        assert table() == ({"1": "v0.0.1"}, {"champion": "v0.0.1"})
        lacks = "which git here lacks"
        mine.git("push", "-q", "origin", "clf@v0.0.1", "clf#champion#1")
        theirs.git("fetch", "-q", "--tags")
        assert tool(theirs, "record") == ([], [])
        gto(mine, "register", "clf")
        gto(mine, "assign", "clf", "HEAD", "--stage", "champion")
        mine.git("push", "-q", "origin", "clf@v0.0.2", "clf#champion#2")
        theirs.git("fetch", "-q", "--tags")
        assert len(tool(theirs, "record")[0]) == 2
        assert tool(mine, "record") == ([], [])
        now = {"1": "v0.0.1", "2": "v0.0.2"}, {"champion": "v0.0.2"}
        assert table() == now
        gto(mine, "assign", "clf", "HEAD~", "--stage", "champion", "--force")
        assert len(tool(mine, "record")[0]) == 1
        lines, notes = tool(theirs, "record")
        assert lines == []
        assert [lacks in note and "clf#champion#3" in note for note in notes] == [True]
        assert table() == (now[0], {"champion": "v0.0.1"})
        (run_id,) = {
            v.tags["dvc.row"]
            for v in client.search_model_versions("name = 'clf'")
            if v.tags["gto.version"] == "v0.0.2"
        }
        _, (why,) = tool(theirs, "promote", run_id)
        assert "; MLflow shows git's tag clf#champion#3, which git here lacks; run `git" in why


@pytest.mark.rest
def test_at_once(project: Repository, tmp_path: Path) -> None:
    """Clones that record at the same moment add each version once."""
    shared = environment(MLFLOW_TRACKING_URI=f"sqlite:///{tmp_path}/shared.db")
    project.tool("record", "--all", **shared)
    gto(project, "register", "clf", "HEAD~")
    gto(project, "register", "clf")
    gto(project, "assign", "clf", "HEAD", "--stage", "champion")
    other = project.copy(tmp_path / "b" / "project")
    command = ("dvc-mlflow", "record")
    started = [
        subprocess.Popen(command, cwd=clone.path, env=shared, stderr=subprocess.PIPE, text=True)
        for clone in (project, other)
    ]
    assert [each.communicate()[1] for each in started] == [""] * 2
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/shared.db")
    found = client.search_model_versions("name = 'clf'")
    assert sorted(version.tags["gto.version"] for version in found) == ["v0.0.1", "v0.0.2"]
    champion = client.get_model_version_by_alias("clf", "champion")
    assert champion.tags["gto.version"] == "v0.0.2"
