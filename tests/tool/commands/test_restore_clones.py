"""`dvc-mlflow restore` works in whatever way a repository was cloned, and changes nothing of it."""

import shutil
import subprocess
from pathlib import Path

import pytest

from dvc_mlflow.pipeline.tags import MD5
from support.clone import environment
from support.hostile import lets_row_name, tag
from support.pipelines import Repository, finished, makes
from support.promoting import folder_of, no_worktree, only_folder, restore, restored

pytestmark = pytest.mark.pipeline


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """A recorded pipeline of one stage, whose result is committed, with a metric in git."""
    files = {"d/x": "1\n", "o.txt": "1\n", "m.json": '{"n": 1}\n'}
    stage = makes(files, deps=["raw.txt"], outs=["d", "o.txt"])
    stage["metrics"] = [{"m.json": {"cache": False}}]
    made = finished(tmp_path_factory.mktemp("made") / "project", {"one": stage})
    made.record()
    made.git("config", "uploadpack.allowFilter", "true")
    return made


def clone_of(made: Repository, path: Path, *options: str) -> Repository:
    """Clone a repository by git, and give the clone its rows and the files of DVC's cache."""
    command = ["git", "clone", "-q", *options, f"file://{made.path}", f"{path}"]
    subprocess.run(command, env=environment(), check=True)
    shutil.copy(made.path / "mlflow.db", path)
    shutil.copytree(made.path / ".dvc/cache", path / ".dvc/cache")
    return Repository(path)


def test_submodule(made: Repository, tmp_path: Path) -> None:
    """In a git submodule, a row is restored, and plain `dvc` works in its folder."""
    above, clone = Repository(tmp_path), Repository(tmp_path / "sub")
    above.git("init", "-q")
    add = ("submodule", "add", "-q", "--name", "other", f"file://{made.path}", "sub")
    above.git("-c", "protocol.file.allow=always", *add)
    shutil.copytree(made.path / ".dvc/cache", clone.path / ".dvc/cache")
    shutil.copy(made.path / "mlflow.db", clone.path)
    before = above.git("status", "--porcelain"), clone.git("config", "--list", "--local")
    restored(clone, clone.rows()[0])
    assert (above.git("status", "--porcelain"), clone.git("config", "--list", "--local")) == before


def test_sparse_checkout(made: Repository, tmp_path: Path) -> None:
    """In a sparse checkout, a row is restored whole, and the checkout stays sparse."""
    clone = clone_of(made, tmp_path / "clone")
    clone.git("sparse-checkout", "set", "--no-cone", "/.dvc/", "/.gitignore")
    folder = restored(clone, clone.rows()[0])
    assert (folder.path / "raw.txt").read_text() == "1\n"
    assert folder.git("status", "--porcelain") == ""
    assert not (clone.path / "raw.txt").exists()
    assert clone.git("sparse-checkout", "list") == "/.dvc/\n/.gitignore"


def test_what_git_or_the_lock_lacks(made: Repository, tmp_path: Path) -> None:
    """A file of a row's commit that git lacks is named, and all else restored.

    So is a result that the commit's dvc.lock does not have; nobody is accused of it.
    """
    project = made.copy_whole(tmp_path / "project")
    blob = project.git("rev-parse", "HEAD:raw.txt")
    (project.path / ".git/objects" / blob[:2] / blob[2:]).unlink()
    said = restore(project, project.rows()[0])
    assert said.status == 1
    assert "raw.txt is missing: git lacks it" in said.error
    assert (only_folder(project) / "d/x").read_text() == "1\n"
    commit, tree = project.git("rev-parse", "HEAD"), project.git("rev-parse", "HEAD^{tree}")
    (project.path / "restored").rename(tmp_path / "before")
    run_id = lets_row_name(project, commit, tree, "f" * 32)
    tag(project, run_id, {f"{MD5}d": "f" * 32})
    said = restore(project, run_id)
    assert said.status == 1
    assert ": the dvc.lock of its git tree lacks it\n" in said.error


def test_partial_clone(made: Repository, tmp_path: Path) -> None:
    """If git has nothing of a row's commit, one line says so, and no folder is made.

    Once its server answers, the row is restored.
    """
    made = made.copy_whole(tmp_path / "made")
    run = made.rows()[0]
    made.commit("Another commit")
    made.git("rm", "-q", "-r", "--cached", ".")
    made.git("commit", "-q", "-m", "Nothing")
    clone = clone_of(made, tmp_path / "clone", "--filter=tree:0", "--no-checkout")
    clone.git("remote", "set-url", "origin", "file:///nowhere")
    said = restore(clone, run)
    assert (said.status, said.error.count("\n")) == (1, 1)
    assert "could not fetch" in said.error
    assert not [*clone.path.glob("restored/*/.git")]
    assert clone.git("worktree", "list").count("\n") == 0
    clone.git("remote", "set-url", "origin", f"file://{made.path}")
    assert restore(clone, run).status == 0
    assert (only_folder(clone) / "m.json").read_text() == '{"n": 1}\n'


def test_moved_and_copied(made: Repository, tmp_path: Path) -> None:
    """A folder that has lost its repository, or is another one's, is named and stays as it is.

    Git's own command brings back one that was moved with its repository.
    """
    project = made.copy_whole(tmp_path / "project")
    (run,) = project.rows()
    name = restored(project, run).path.name
    copied = Repository(Path(shutil.copytree(project.path, tmp_path / "copied", symlinks=True)))
    said, place = restore(copied, run), copied.path / "restored" / name
    assert (said.status, said.error) == (1, no_worktree(place))
    shutil.rmtree(place)
    assert restore(copied, run).status == 0
    assert "already exists" in restore(project, run).out
    moved = Repository(project.path.rename(tmp_path / "moved"))
    said, place = restore(moved, run), moved.path / "restored" / name
    assert (said.status, said.error) == (1, no_worktree(place))
    moved.run("git", "worktree", "repair", place)
    said = restore(moved, run)
    assert (said.status, said.error, folder_of(moved, said).path) == (0, "", place)
    assert "already exists" in said.out
