"""Restore rows, and check that a restored folder is what its row says."""

import shutil
import subprocess
from contextlib import chdir, redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path

from mlflow.entities import Run

from dvc_mlflow.__main__ import main
from support.clone import Clone
from support.pipelines import Repository, Said, evaluate, prepare, repository, reproduce, train

PIPELINE = {"prepare": prepare(), **{"train": train(), "a": evaluate("a")}}


def restore(project: Repository, run: Run | str, command: str = "restore") -> Said:
    """Run `dvc-mlflow restore` in this process."""
    out, error = StringIO(), StringIO()
    run_id = run if isinstance(run, str) else run.info.run_id
    with chdir(project.path), redirect_stdout(out), redirect_stderr(error):
        status = main([command, run_id])
    return Said(out.getvalue(), error.getvalue(), status)


def restored(project: Repository, run: Run) -> Clone:
    """Restore a row, check that all is as it says, and return its folder."""
    before = contents(project.path), project.git("status", "--porcelain"), project.table()
    said = restore(project, run)
    assert (said.status, said.error) == (0, ""), said
    assert (contents(project.path), project.git("status", "--porcelain"), project.table()) == before
    folder = Clone(project.path / said.out.splitlines()[-1].partition(":")[0])
    assert "up to date" in folder.dvc("status").stdout
    for key, md5 in run.data.tags.items():
        if key.startswith("md5."):
            here = subprocess.run(
                ["md5sum", folder.path / key.removeprefix("md5.")], capture_output=True, check=True
            )
            assert here.stdout.split()[0].decode() == md5
    return folder


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
