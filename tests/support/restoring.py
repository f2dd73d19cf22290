"""Restore rows, and check that a restored folder is what its row says."""

import hashlib
import shutil
from pathlib import Path

from mlflow.entities import Run

from support.pipelines import Repository, Said, evaluate, prepare, repository, reproduce, train

PIPELINE = {"prepare": prepare(), **{"train": train(), "a": evaluate("a")}}


def restore(project: Repository, run: Run | str, command: str = "restore") -> Said:
    """Run `dvc-mlflow restore` in this process."""
    return project.tool(command, run if isinstance(run, str) else run.info.run_id)


def no_worktree(place: Path) -> str:
    """Return what `restore` says of a place that is not its own."""
    cure = f"move it away; if the repository has moved with it, `git worktree repair {place}`"
    return f"dvc-mlflow: {place}: exists, and is no git worktree of this repository; {cure}\n"


def only_folder(project: Repository) -> Path:
    """Return the only folder that has been restored."""
    (folder,) = (each.parent for each in project.path.glob("restored/*/.git"))
    return folder


def folder_of(project: Repository, said: Said) -> Repository:
    """Return the folder that `restore` has named."""
    return Repository(project.path / said.out.splitlines()[-1].partition(":")[0])


def restored(project: Repository, run: Run) -> Repository:
    """Restore a row, check that all is as it says, and return its folder."""
    before = contents(project.path), project.git("status", "--porcelain"), project.table()
    said = restore(project, run)
    assert (said.status, said.error) == (0, ""), said
    assert (contents(project.path), project.git("status", "--porcelain"), project.table()) == before
    folder = folder_of(project, said)
    assert "up to date" in folder.dvc("status").stdout
    check_md5s(folder.path, run)
    return folder


def check_md5s(folder: Path, run: Run) -> None:
    """Check that a folder has the files whose md5s a row names; `dvc status` knows its folders."""
    for key, md5 in run.data.tags.items():
        if key.startswith("md5.") and not md5.endswith(".dir"):
            content = (folder / key.removeprefix("md5.")).read_bytes()
            assert hashlib.md5(content, usedforsecurity=False).hexdigest() == md5, key


def contents(path: Path) -> dict[str, bytes]:
    """Return every file except git's, DVC's, MLflow's and those that were restored."""
    own = {".git", "tmp", "cache", "restored", "mlartifacts", "mlflow.db"}
    return {
        str(file.relative_to(path)): file.read_bytes()
        for file in path.rglob("*")
        if file.is_file() and not own & {*file.relative_to(path).parts}
    }


def with_remotes(folder: Path) -> Repository:
    """Return a recorded pipeline with a git and a DVC remote, whose first result is committed."""
    project = repository(folder / "project", PIPELINE, files={"code.sh": "echo 1\n"})
    project.run("git", "init", "-q", "--bare", "-b", "main", "../remote.git")
    project.git("remote", "add", "origin", "../remote.git")
    project.dvc("remote", "add", "-q", "-d", "team", "../store")
    project.commit("Remotes")
    reproduce(project)
    project.commit("Results")
    return project


def copy_with_remotes(made: Repository, folder: Path) -> Repository:
    """Copy that pipeline with its store and its git remote."""
    shutil.copytree(made.path.parent / "remote.git", folder / "remote.git")
    return made.copy_whole(folder / "project")
