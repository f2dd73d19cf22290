"""Run `dvc-mlflow record` as a user does, and check that it refuses in one line."""

from pathlib import Path

from support.hostile import plain
from support.pipelines import Repository, served

SECRET = "s3cret"  # noqa: S105


def recorded_once(folder: Path) -> Repository:
    """Make a pipeline in a folder that has run once and has a row."""
    project = served().copy(folder / "project")
    assert project.record().status == 0
    return project


def refused_here(project: Repository, *arguments: str, **more: str) -> str:
    """Return the one line with which `record` fails in this process: no test opens its store."""
    said = plain(project.tool("record", *arguments, **more))
    assert said.status == 1, said
    assert said.out == "", said
    assert said.error.count("\n") == 1, said
    assert said.error.endswith("\n"), said
    assert SECRET not in said.error, said
    return said.error.removeprefix("dvc-mlflow: ").removesuffix("\n")
