"""Restore and promote rows, and check that folders and versions are what the rows say."""

import hashlib
import os
import shutil
import sqlite3
import time
import warnings
from contextlib import chdir, closing, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any
from unittest.mock import patch

from mlflow.entities import Run
from mlflow.entities.model_registry import ModelVersion

from dvc_mlflow.pipeline.tags import GTO_COMMIT, GTO_TAG, MD5, ROW
from support.clone import STORES, contents, environment
from support.hostile import plain
from support.pipelines import (
    ARTIFACTS,
    LOADER,
    PARAMS,
    Repository,
    Said,
    Stages,
    evaluate,
    prepare,
    repository,
    reproduce,
    train,
)

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

    def all_there_is() -> tuple[object, ...]:
        files = contents(project.path, "restored", *STORES)
        return files, project.git("status", "--porcelain"), project.table()

    before = all_there_is()
    said = restore(project, run)
    assert (said.status, said.error) == (0, ""), said
    assert all_there_is() == before
    folder = folder_of(project, said)
    assert "up to date" in folder.dvc("status").stdout
    check_md5s(folder.path, run)
    return folder


def check_md5s(folder: Path, run: Run) -> None:
    """Check that a folder has the files whose md5s a row names; `dvc status` knows its folders."""
    for key, md5 in run.data.tags.items():
        if key.startswith(MD5) and not md5.endswith(".dir"):
            content = (folder / key.removeprefix(MD5)).read_bytes()
            assert hashlib.md5(content, usedforsecurity=False).hexdigest() == md5, key


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


TRAP = f"open(__file__ + '.ran', 'w')\n{LOADER}"
"""A loader that leaves a file where it is imported."""


def measure(*deps: str, promote: Any = ("test/score", "-test/loss"), **more: Any) -> dict[str, Any]:
    """Return a stage that measures the params `a` and `b` as score and loss, on test.txt."""
    number = "$(sed -n 's/^{}: //p' params.yaml)".format
    text = f'{{\\"score\\": {number("a")}, \\"loss\\": {number("b")}}}'
    mlflow = {"prefix": "test/", "promote": [*promote], **more}
    return {
        "cmd": f'echo "{text}" > test.json',
        "deps": ["model.txt", *(deps or ("test.txt",))],
        "params": ["a", "b"],
        "metrics": [{"test.json": {"cache": False}}],
        "meta": {"mlflow": mlflow},
    }


def project_of(path: Path, stages: Stages, params: Any = PARAMS, **top: Any) -> Repository:
    """Return a repository in which these stages have run and been recorded.

    Its model.txt is `clf` in git's tags, unless `top`, the rest of dvc.yaml, says otherwise.
    """
    top = {"artifacts": ARTIFACTS, **top}
    files = {"loader.py": TRAP, "test.txt": "1\n", "labels.txt": "1\n"}
    project = repository(path / "project", stages, params, files, data=["test.txt"], **top)
    project.dvc("repro", "-q")
    project.commit("The results")
    assert project.record().status == 0
    return project


def measured(folder: Path, **top: Any) -> Repository:
    """Make a pipeline in a folder whose model is measured on data that DVC tracks."""
    return project_of(folder, {"train": train("raw.txt"), "measure": measure()}, **top)


def row(project: Repository, *, commit: bool = True, **params: float) -> Run:
    """Run the pipeline with other params, commit the result, and return its row."""
    before = {each.info.run_id for each in project.rows()}
    project.set(params)
    project.dvc("repro", "-q")
    if commit:
        project.commit(f"{params}")
    assert project.record().status == 0
    (new,) = (each for each in project.rows() if each.info.run_id not in before)
    return new


def promote(project: Repository, *arguments: str) -> Said:
    """Run `dvc-mlflow promote` with the identity that git needs for a tag."""
    return project.tool("promote", *arguments, **environment())


def promoted(project: Repository, run: Run, name: str = "clf") -> str:
    """Promote a row; return the champion's version in git, which MLflow shows."""
    said = promote(project, run.info.run_id)
    assert (said.status, said.error) == (0, ""), said
    made, *_, share = said.out.splitlines()
    tags = made.partition(":")[0].split(" and ")
    version = tags[0].removeprefix(f"{name}@")
    commit = project.git("rev-list", "-n1", tags[0])
    assert made.endswith(f": at commit {commit[:7]}, the model of row {run.info.run_id}")
    assert share.startswith(f"to share it: git push origin {tags[0]} '{tags[1]}' && dvc push")
    assert tags[1].startswith(f"{name}#champion#")
    shown = registered(project, name)[version]
    assert shown.tags[ROW] == run.info.run_id
    assert shown.tags[GTO_COMMIT] == commit
    assert shown.source == f"models:/{project.models(run)[0]}"
    assert project.client.get_model_version_by_alias(name, "champion").version == shown.version
    return version


def refused(project: Repository, run: Run | str, *options: str) -> str:
    """Return why a row is not promoted, and on further lines what dvc.yaml lacks.

    The registry stays as it is, in git and in MLflow.
    """
    before = registry(project), project.git("tag")
    run_id = run if isinstance(run, str) else run.info.run_id
    said = plain(promote(project, run_id, *options))
    assert (said.status, said.error.count("\n")) == (1, 1)
    assert (registry(project), project.git("tag")) == before
    said = said._replace(error=said.error + said.out)
    return said.error.removeprefix("dvc-mlflow: ").removeprefix(f"{run_id}: not promoted; ")[:-1]


def gto(project: Repository, *arguments: str) -> None:
    """Run `gto` in this process, with a clock that is in a second of its own: it orders tags by it.

    The first is long ago, so only a tag that is from this very second takes time.
    """
    with warnings.catch_warnings(action="ignore"):  # of Typer, in the oldest version
        from gto.cli import app
    newest = ("--count=1", "--sort=-taggerdate", "--format=%(taggerdate:unix)", "refs/tags")
    second = int(project.git("for-each-ref", *newest) or time.time() - 1000) + 1
    time.sleep(max(0, second - time.time()))
    with (
        patch("time.time", return_value=float(second)),
        patch.dict(os.environ, environment(), clear=True),
        chdir(project.path),
        redirect_stdout(StringIO()),
    ):
        app([*arguments], standalone_mode=False)


def registered(project: Repository, name: str = "clf") -> dict[str, ModelVersion]:
    """Return MLflow's versions by the names that git has for them, or else by their numbers."""
    found = project.client.search_model_versions(f"name = '{name}'")
    return {each.tags.get(GTO_TAG, f"{each.version}").rpartition("@")[2]: each for each in found}


def aliases(project: Repository, name: str = "clf") -> dict[str, str]:
    """Return the version in git of each alias in MLflow, or its number if git has none."""
    numbers = {f"{each.version}": own for own, each in registered(project, name).items()}
    found = project.client.get_registered_model(name).aliases
    return {alias: numbers[f"{number}"] for alias, number in found.items()}


def registry(project: Repository) -> list[tuple[object, ...]]:
    """Return all that is registered."""
    found: list[tuple[object, ...]] = []
    with closing(sqlite3.connect(project.path / "mlflow.db")) as store:
        for table in ("registered_models", "model_versions", "registered_model_aliases"):
            found += store.execute(f"SELECT * FROM {table}").fetchall()  # noqa: S608
    return found


def registrable(folder: Path) -> Repository:
    """Return a pipeline with two committed results, whose model has a key in `artifacts`."""
    project = measured(folder)
    row(project, rate=2, a=2)
    return project


def registry_lines(project: Repository, *arguments: str) -> tuple[list[str], list[str]]:
    """Record, and return what is said of the registry, and what is warned of."""
    said = plain(project.record(*arguments))
    assert said.status == 0
    lines = [line for line in said.out.splitlines() if "models:/" in line]
    return lines, said.error.replace("dvc-mlflow: ", "").splitlines()
