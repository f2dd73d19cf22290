"""Repositories that have never heard of the tool, and their twins, for plain `dvc`."""

import re
from pathlib import Path
from typing import Any

from support.clone import Done
from support.pipelines import Repository, Stages, repository

NEW = "dvc-mlflow: "
"""What the tool's own lines begin with."""


def said(done: Done) -> str:
    """Return what a command printed to stderr, without the tool's own lines."""
    return "".join(line for line in done.stderr.splitlines(True) if not line.startswith(NEW))


def unheard(path: Path, stages: Stages, **more: Any) -> Repository:
    """Make a repository that has never heard of the tool: no store, and nothing hides one."""
    made = repository(path, stages, **more)
    made.remove_store()
    (made.path / ".gitignore").unlink()
    made.commit("Without the tool")
    return made


def twins(folder: Path, stages: Stages, **more: Any) -> tuple[Repository, Repository]:
    """Make two such repositories, with the same path below their folders."""
    ours, twin = (folder / name / "project" for name in ("ours", "twin"))
    return unheard(ours, stages, **more), unheard(twin, stages, **more)


def content(project: Repository) -> dict[str, object]:
    """Return all that a `dvc` leaves behind: each file's bytes and mode, and what git and DVC have.

    Not compared are what DVC and git write anew in each run: temporary files, times and hashes of
    commits.
    """
    found: dict[str, object] = {}
    for path in sorted(project.path.rglob("*")):
        name = f"{path.relative_to(project.path)}"
        if path.is_file() and not re.match(r"\.git/|\.dvc/tmp/|mlflow\.db|mlartifacts/", name):
            found[name] = path.read_bytes(), path.stat().st_mode
    found["index"] = project.git("ls-files", "-s")
    found["status"] = project.git("status", "--short")
    found["config"] = (project.path / ".git" / "config").read_text()
    form = "--format=%(refname:lstrip=-1) %(tree)"
    found["experiments"] = project.git("for-each-ref", form, "refs/exps/*/*/*")
    found["branches"] = project.git("for-each-ref", "--format=%(refname) %(tree)", "refs/heads")
    return found
