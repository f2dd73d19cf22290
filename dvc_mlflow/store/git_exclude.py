"""Hide the repository's own store from git, by `info/exclude`: no file of the user's changes."""

import os
import posixpath
from functools import cache
from pathlib import Path

from ..errors import warn
from ..git import ask, checkout, git, literal
from ..place import folder_of, store_folder, why_not_in_tree

_MARK = "# dvc-mlflow: MLflow's store, and what `dvc-mlflow restore` brings back"
_HIDDEN = {"mlflow.db": "mlflow.db*", "mlartifacts/x": "mlartifacts/", "restored/x": "restored/"}
"""The patterns, each after a path that git ignores if the user has hidden it already."""


@cache
def hide_store(root: Path) -> None:
    """Hide the store of the main repository at `root`, or say why it is not there; once each.

    Raises `ProjectError`.
    """
    why = why_not_in_tree(root)
    if why:
        where = f"MLflow's store is {store_folder(root)}/mlflow.db"
        warn(f"{why}, so {where}; `dvc-mlflow run` sends what scripts log there, too")
    elif problem := _hide(root):
        warn(problem)


def _hide(root: Path) -> str:
    """Hide the store; return why it cannot be hidden, or ""."""
    options = ("--path-format=absolute", "--git-path", "info/exclude")
    path = os.fsdecode(git("rev-parse", *options, cwd=root)).removesuffix("\n")
    folder = folder_of(root, checkout(root))
    inside = {posixpath.join(folder, name): line for name, line in _HIDDEN.items()}
    ignored = ask(
        "check-ignore", "--no-index", "-z", "--stdin", cwd=root, text="\0".join(inside)
    ).split("\0")
    start = literal(f"{folder}/" if folder else "")
    lines = [f"/{start}{line}" for name, line in inside.items() if name not in ignored]
    return _append(Path(path), [_MARK, *lines]) if lines else ""


def _append(file: Path, lines: list[str]) -> str:
    """Append lines to a file; return why that is impossible, or ""."""
    try:
        file.parent.mkdir(exist_ok=True)
        with file.open("a+b") as opened:
            opened.seek(0)
            text = opened.read()
            start = b"" if text.endswith(b"\n") or not text else b"\n"
            opened.write(start + os.fsencode("".join(f"{line}\n" for line in lines)))
    except OSError as error:
        return f"{file}: {error.strerror}, so git shows MLflow's files as untracked"
    return ""
