"""Run `dvc-mlflow heal`, and damage what it repairs."""

import hashlib
from pathlib import Path

from support.pipelines import Repository, Stages, evaluate, makes, train

PIPELINE: Stages = {
    "train": train("raw.txt"),
    "split": makes({"parts/one": "1\n", "parts/two": "2\n"}, outs=["parts"]),
    "a": evaluate("a"),
}


def heal(project: Repository, *folders: str) -> list[str]:
    """Run `dvc-mlflow heal` in this process, and return what it says."""
    said = project.tool("heal", *folders)
    assert (said.status, said.error) == (0, ""), said
    return said.out.splitlines()


def healed(project: Repository, *folders: str) -> list[str]:
    """Return the files that `dvc-mlflow heal` names."""
    paths = [line.split(": ")[0] for line in heal(project, *folders)]
    return [path.removeprefix(f"{project.path}/") for path in paths]


def contents(folder: Path) -> dict[str, bytes]:
    """Return the files below a folder, except git's and those in .dvc/tmp."""
    return {
        f"{path.relative_to(folder)}": path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not {".git", "tmp"} & {*path.relative_to(folder).parts}
    }


def md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def place(project: Repository, oid: str) -> Path:
    """Return the path of an md5 in DVC's cache."""
    return project.path / ".dvc/cache/files/md5" / oid[:2] / oid[2:]


def damage(path: Path, content: bytes = b"damaged") -> None:
    """Overwrite a file in DVC's cache, which is read-only."""
    path.chmod(0o644)
    path.write_bytes(content)
    path.chmod(0o444)
