"""Run `dvc-mlflow record` as a user does, and check that it refuses in one line."""

import hashlib
import re
import sys
from pathlib import Path

from support.clone import Done
from support.pipelines import Repository, Said, served

SECRET = "s3cret"  # noqa: S105
SCRIPT = Path(sys.executable).with_name("dvc-mlflow")


def recorded_once(folder: Path) -> Repository:
    """Make a pipeline in a folder that has run once and has a row."""
    project = served().copy(folder / "project")
    assert project.record().status == 0
    return project


def record(project: Repository, *arguments: str | Path, **more: str) -> Done:
    """Run the console script."""
    return project.run(SCRIPT, "record", *arguments, check=False, **more)


def refused_here(project: Repository, *arguments: str, **more: str) -> str:
    """Return the one line with which `record` fails in this process: no test opens its store."""
    return _only_line(project.tool("record", *arguments, **more))


def _only_line(said: Said) -> str:
    assert said.status == 1, said
    assert said.out == "", said
    assert said.error.count("\n") == 1, said
    assert said.error.endswith("\n"), said
    assert "Traceback" not in said.error, said
    assert SECRET not in said.error, said
    assert is_plain(said.error), said
    return said.error.removeprefix("dvc-mlflow: ").removesuffix("\n")


def is_plain(text: str) -> bool:
    """Whether a text has no control characters."""
    return text.replace("\n", "").isprintable()


def files(folder: Path) -> dict[str, str]:
    """Return the md5 of each file below a folder, except those of git, DVC and MLflow."""
    own = re.compile(r"(^|/)(\.git|\.dvc/(tmp|cache)|mlartifacts)(/|$)|(^|/)mlflow\.db")
    found = {f"{path.relative_to(folder)}": path for path in folder.rglob("*")}
    return {
        name: hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()
        if path.is_file()
        else ""
        for name, path in found.items()
        if not own.search(name)
    }
