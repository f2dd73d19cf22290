"""The tool's own files are in git's folder, where no clone brings anything."""

import os
from pathlib import Path

import pytest

from dvc_mlflow.errors import ProjectError
from dvc_mlflow.place import own_folder
from support.clone import environment
from support.following import following
from support.hostile import Place
from support.pipelines import Repository, evaluate, finished, repository
from support.servers import serving

pytestmark = [
    pytest.mark.pipeline,
    pytest.mark.filterwarnings("ignore"),  # warnings from MLflow
]
STAGES = {"a": evaluate("a", "raw.txt")}


def below(folder: Path) -> set[str]:
    """Return the paths of all that is in a folder."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


def test_where(tmp_path: Path) -> None:
    """All that the tool writes for itself is in git's folder, also from DVC's temporary copies."""
    project = finished(tmp_path / "project", STAGES)
    before = below(project.path / ".dvc")
    project.set({"a": 2})
    project.run("dvc-mlflow", "run", "dvc", "exp", "run", "--temp")
    assert project.record("--all").status == 0
    new = below(project.path / ".dvc") - before
    assert not {path for path in new if "mlflow" in path or "clone" in path}, new
    own = below(project.path / ".git/dvc-mlflow")
    assert {"clone", "follow.log", f"follower.{os.uname().nodename}"} <= own
    assert project.git("status", "--porcelain") == "M params.yaml"


def test_two_projects(tmp_path: Path) -> None:
    """Two projects of one repository have a folder each, and a nested one its outer one's."""
    git = Repository(tmp_path / "git")
    for name in ("one", "two"):
        project = repository(git.path / name, STAGES)
        (project.path / ".git").rename(tmp_path / f"{name}.git")
    (tmp_path / "one.git").rename(git.path / ".git")
    git.git("add", "-A")
    git.git("commit", "-q", "-m", "Two")
    assert [own_folder(git.path / name) for name in ("one", "two")] == [
        git.path / ".git/dvc-mlflow" / name for name in ("one", "two")
    ]
    for name in ("one", "two"):
        assert git.tool("record", folder=name, **environment(GIT_DIR="/nowhere")).status in (0, 1)
    assert below(git.path / ".git/dvc-mlflow") >= {"one/clone", "two/clone"}


@pytest.mark.parametrize("kind", ["link", "file"])
def test_not_its_own(place: Place, kind: str) -> None:
    """If its folder is a link or a file, as in an archive, a line says so."""
    folder = place.project.path / ".git/dvc-mlflow"
    for path in sorted(folder.rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    folder.rmdir()
    if kind == "link":
        folder.symlink_to(place.outside)
    else:
        folder.touch()
    before = place.untouched()
    with pytest.raises(ProjectError, match="dvc-mlflow"):
        own_folder(place.project.path)
    for words in (["record"], ["record", "--all"], ["follow"], ["ui"]):
        said = place.tool(*words)
        assert said.status == 1
        (line,) = said.error.splitlines()
        assert f"{folder}" in line
    assert place.run("run", "true").status == 0
    assert place.untouched() == before


@pytest.mark.rest
def test_server_without_it(tmp_path: Path) -> None:
    """Where nothing can be written into git's folder, `record` to a server works, with a line."""
    project = finished(tmp_path / "project", STAGES)
    (project.path / ".git/dvc-mlflow").touch()
    store = f"sqlite:///{tmp_path}/server.db"
    command = ("server", "--backend-store-uri", store, "--workers", "1")
    with serving(project, *command) as address:
        said = project.tool("record", MLFLOW_TRACKING_URI=address)
    assert (said.status, ": added " in said.out) == (0, True), said
    (line,) = said.error.splitlines()
    assert line.startswith(f"dvc-mlflow: {project.path}/.git/dvc-mlflow")


LINKS = {".dvc/tmp": "../../outside", ".dvc/cache": "../../outside", ".dvc": "../outside/.dvc"}


@pytest.mark.parametrize("path", LINKS)
def test_links_of_a_clone(place: Place, path: str) -> None:
    """Through a link that git tracks, nothing is written into a folder outside."""
    project = place.project
    (project.path / path).rename(project.path.parent / "before")
    (project.path / path).symlink_to(LINKS[path])
    project.git("add", "-f", path)
    before = place.untouched()
    for words in (["record", "--all"], ["follow"]):
        said = place.tool(*words)
        assert said.status == 1
        assert said.error.endswith(f"{path} is a link that git tracks; delete it\n")
    assert place.untouched() == before


def test_without_git(tmp_path: Path) -> None:
    """Without git, each command says in a line that it needs git; `run` runs the command."""
    project = repository(tmp_path / "project", STAGES)
    (project.path / ".git").rename(tmp_path / "elsewhere")
    for words in (["record"], ["record", "--all"], ["follow"], ["ui"], ["restore", "1234567"]):
        said = project.tool(*words)
        assert (said.out, said.status) == ("", 1), words
        assert said.error == (
            f"dvc-mlflow: {project.path} is in no git repository, which dvc-mlflow needs: "
            "run `git init`\n"
        )
    done = project.run("dvc-mlflow", "run", "echo", "hello")
    assert (done.stdout, done.returncode) == ("hello\n", 0)
    assert "run `git init`" in done.stderr


def test_follower_that_is_there(tmp_path: Path) -> None:
    """A follower's lock is in git's folder, and DVC's folder has nothing new."""
    project = finished(tmp_path / "project", STAGES)
    before = below(project.path / ".dvc")
    with following(project):
        assert "asked" not in below(project.path / ".dvc") - before
        assert (project.path / f".git/dvc-mlflow/follower.{os.uname().nodename}").exists()
