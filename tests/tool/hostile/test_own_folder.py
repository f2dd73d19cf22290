"""The tool's own files are in git's folder, where no clone brings anything."""

import os
import shutil
from pathlib import Path

import pytest

from dvc_mlflow.place import own_folder
from support.following import following, run_dvc
from support.hostile import Place
from support.pipelines import Repository, evaluate, finished
from support.servers import serving

pytestmark = pytest.mark.pipeline


def below(folder: Path) -> set[str]:
    """Return the paths of all that is in a folder."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*")}


def test_where(tmp_path: Path) -> None:
    """All that the tool writes for itself is in git's folder, also from DVC's temporary copies."""
    project = finished(tmp_path / "project", {"a": evaluate("a", "raw.txt")})
    before = below(project.path / ".dvc")
    project.set({"a": 2})
    with following(project):
        run_dvc(project, "exp", "run", "--temp")
        assert project.record("--all").status == 0
        for name in ("clone", f"follower.{os.uname().nodename}"):
            assert (project.path / ".git/dvc-mlflow" / name).exists()
    new = below(project.path / ".dvc") - before
    assert not {path for path in new if "mlflow" in path or "clone" in path}, new
    assert project.git("status", "--porcelain") == "M params.yaml"


def test_two_projects(tmp_path: Path) -> None:
    """Two projects of one repository have a folder each."""
    Repository(tmp_path).git("init", "-q")
    for name in ("one", "two/deep"):
        (tmp_path / name).mkdir(parents=True)
        assert own_folder(tmp_path / name) == tmp_path / ".git/dvc-mlflow" / name


def test_no_folder(place: Place) -> None:
    """Without git, or if its folder there is a link or a file, a line says so; `run` goes on."""
    git, outside = place.project.path / ".git", place.outside
    folder = git / "dvc-mlflow"
    shutil.rmtree(folder)
    lines = {
        "link": f"{folder} is a link; delete it",
        "file": f"{folder}: File exists",
        "none": f"{git.parent} is in no git repository, which dvc-mlflow needs: run `git init`",
    }
    for kind, line in lines.items():
        folder.unlink(missing_ok=True)
        if kind == "link":
            folder.symlink_to(outside)
        elif kind == "file":
            folder.touch()
        else:
            git.rename(outside / "git")
        before = place.untouched()
        for words in (["record"], ["record", "--all"], ["follow"], ["ui"]):
            said = place.tool(*words)
            assert (said.out, said.status, said.error.count("\n")) == ("", 1, 1), (kind, words)
            assert line in said.error, (kind, words)
        done = place.run("run", "echo", "hello")
        assert (done.out, done.status) == ("hello\n", 0)
        assert line in done.error
        assert place.untouched() == before


@pytest.mark.rest
def test_server_without_it(place: Place, tmp_path: Path) -> None:
    """Where nothing can be written into git's folder, `record` to a server works, with a line."""
    project = place.project
    shutil.rmtree(project.path / ".git/dvc-mlflow")
    (project.path / ".git/dvc-mlflow").touch()
    store = f"sqlite:///{tmp_path}/server.db"
    with serving(project, "server", "--backend-store-uri", store) as address:
        said = place.tool("record", MLFLOW_TRACKING_URI=address)
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
