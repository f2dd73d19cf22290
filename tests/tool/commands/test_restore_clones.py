"""`dvc-mlflow restore` works in whatever way a repository was cloned, and changes nothing of it."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from support.clone import environment
from support.hostile import lets_row_name
from support.pipelines import Repository, finished, makes, repository
from support.restoring import folder_of, only_folder, restore, restored

pytestmark = [
    pytest.mark.pipeline,
    pytest.mark.filterwarnings("ignore"),  # warnings from MLflow
]


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
    """Clone a repository by git, and give the clone the rows of the first one."""
    command = ["git", "clone", "-q", *options, f"file://{made.path}", f"{path}"]
    subprocess.run(command, env=environment(), check=True)
    shutil.copy(made.path / "mlflow.db", path)
    return Repository(path)


def with_cache(clone: Repository, made: Repository) -> Repository:
    """Give a clone the files of DVC's cache."""
    shutil.copytree(made.path / ".dvc/cache", clone.path / ".dvc/cache")
    return clone


def test_submodule(made: Repository, tmp_path: Path) -> None:
    """In a git submodule, a row is restored, and plain `dvc` works in its folder."""
    above = Repository(tmp_path)
    above.git("init", "-q")
    add = ("submodule", "add", "-q", "--name", "other", f"file://{made.path}", "sub")
    above.git("-c", "protocol.file.allow=always", *add)
    clone = with_cache(Repository(tmp_path / "sub"), made)
    shutil.copy(made.path / "mlflow.db", clone.path)
    before = above.git("status", "--porcelain"), clone.git("config", "--list", "--local")
    restored(clone, clone.rows()[0])
    assert (above.git("status", "--porcelain"), clone.git("config", "--list", "--local")) == before


def test_sparse_checkout(made: Repository, tmp_path: Path) -> None:
    """In a sparse checkout, a row is restored whole, and the checkout stays sparse."""
    clone = with_cache(clone_of(made, tmp_path / "clone"), made)
    clone.git("sparse-checkout", "set", "--no-cone", "/.dvc/", "/.gitignore")
    folder = restored(clone, clone.rows()[0])
    assert (folder.path / "raw.txt").read_text() == "1\n"
    assert folder.git("status", "--porcelain") == ""
    assert not (clone.path / "raw.txt").exists()
    assert clone.git("sparse-checkout", "list") == "/.dvc/\n/.gitignore"


def test_settings_that_dvc_refuses(made: Repository, tmp_path: Path) -> None:
    """A row whose commit has settings that DVC refuses is restored, as far as its files are there.

    What is missing is named, and nothing of it stays in git's list of worktrees.
    """
    project = made.copy_whole(tmp_path / "project")
    config = project.path / ".dvc/config"
    config.write_text("['remote \"a\"']\n    url = https://example.org/x\n    auth = token\n")
    project.git("commit", "-q", "-a", "-m", "Settings that DVC refuses")
    commit, tree = project.git("rev-parse", "HEAD"), project.git("rev-parse", "HEAD^{tree}")
    run_id = lets_row_name(project, commit, tree)
    config.write_text("[core]\n    remote = a\n['remote \"a\"']\n    url = /nowhere/at/all\n")
    project.git("commit", "-q", "-a", "-m", "Settings that it reads")
    assert restore(project, run_id).status == 0
    project.run("rm", "-r", ".dvc/cache", "restored", "d")
    said = restore(project, run_id)
    assert (said.status, ": d (md5 " in said.error) == (1, True)
    assert (only_folder(project) / "m.json").exists()
    assert project.git("worktree", "list").count("restored") == 1


def folder_in_git(path: Path, x: str = "1\n") -> Repository:
    """Make a pipeline that is recorded, and whose commit has its output folder, with a file `x`."""
    stage = makes({"d/x": "1\n", "d/y": "2\n"}, deps=["raw.txt"], outs=["d"])
    project = repository(path, {"one": stage})
    project.dvc("repro", "-q")
    project.write({"d/x": x})
    project.git("add", "-f", "d")
    project.commit("The results")
    project.record("--all")
    return project


def test_folder_that_git_has_too(tmp_path: Path) -> None:
    """An output folder that git tracks comes from git if DVC's cache lacks it."""
    project = folder_in_git(tmp_path / "project")
    (run,) = project.rows()
    shutil.rmtree(project.path / ".dvc/cache")
    said = restore(project, run)
    assert (said.status, said.error) == (0, ""), said
    folder = folder_of(project, said)
    assert {path.name: path.read_text() for path in (folder.path / "d").iterdir()} == {
        "x": "1\n",
        "y": "2\n",
    }
    assert folder.git("status", "--porcelain") == ""


def test_folder_that_git_has_otherwise(tmp_path: Path) -> None:
    """An output folder that git has with another content is named, and stays as git has it."""
    project = folder_in_git(tmp_path / "project", "another one\n")
    (run,) = project.rows()
    shutil.rmtree(project.path / ".dvc/cache")
    said = restore(project, run)
    assert said.status == 1
    (line,) = said.error.splitlines()
    assert ": d (md5 " in line
    assert (only_folder(project) / "d/x").read_text() == "another one\n"


def test_objects_that_git_lacks(made: Repository, tmp_path: Path) -> None:
    """In a partial clone without its server, a row is restored but for outputs that it names."""
    clone = clone_of(made, tmp_path / "clone", "--filter=tree:0")
    clone.git("remote", "set-url", "origin", "file:///nowhere")
    said = restore(clone, clone.rows()[0])
    assert (said.status, ": o.txt (md5 " in said.error) == (1, True), said
    assert json.loads((only_folder(clone) / "m.json").read_text()) == {"n": 1}


def test_file_that_git_lacks(made: Repository, tmp_path: Path) -> None:
    """A file of a row's commit that git lacks is named; all else is restored."""
    project = made.copy_whole(tmp_path / "project")
    blob = project.git("rev-parse", "HEAD:raw.txt")
    (project.path / ".git/objects" / blob[:2] / blob[2:]).unlink()
    said = restore(project, project.rows()[0])
    assert said.status == 1
    assert "raw.txt is missing: git lacks it" in said.error
    assert (only_folder(project) / "d/x").read_text() == "1\n"


def test_commit_that_git_lacks(made: Repository, tmp_path: Path) -> None:
    """If git has nothing of a row's commit, one line says so, and no folder is made.

    Once its server answers, the row is restored.
    """
    made = made.copy_whole(tmp_path / "made")
    run = made.rows()[0]
    made.commit("Another commit")
    made.git("rm", "-q", "-r", "--cached", ".")
    made.git("commit", "-q", "-m", "Nothing")
    clone = with_cache(clone_of(made, tmp_path / "clone", "--filter=tree:0", "--no-checkout"), made)
    (clone.path / ".dvc/tmp").mkdir()
    clone.git("remote", "set-url", "origin", "file:///nowhere")
    said = restore(clone, run)
    assert (said.status, said.error.count("\n")) == (1, 1)
    assert "could not fetch" in said.error
    assert not [*clone.path.glob("restored/*/.git")]
    assert clone.git("worktree", "list").count("\n") == 0
    clone.git("remote", "set-url", "origin", f"file://{made.path}")
    assert restore(clone, run).status == 0


def test_result_that_no_lock_has(made: Repository, tmp_path: Path) -> None:
    """If no dvc.lock has a row's result, one line says that, and accuses nobody."""
    project = made.copy_whole(tmp_path / "project")
    commit, tree = project.git("rev-parse", "HEAD"), project.git("rev-parse", "HEAD^{tree}")
    said = restore(project, lets_row_name(project, commit, tree, "f" * 32))
    assert said.status == 1
    (line,) = said.error.splitlines()
    assert line.endswith(": the dvc.lock of its git tree lacks it")
