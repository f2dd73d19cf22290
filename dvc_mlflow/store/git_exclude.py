"""Hide the repository's own store from git, by `info/exclude`: no file of the user's changes."""

import os
from functools import cache
from pathlib import Path

from ..errors import warn
from ..git import checkout, common_folder, literal
from ..place import folder_of, store_folder, why_not_in_tree

_MARK = "# dvc-mlflow: MLflow's store, and what `dvc-mlflow restore` brings back"
_HIDDEN = ("mlflow.db*", "mlartifacts/", "restored/")


@cache
def hide_store(root: Path) -> None:
    """Hide the store of the main repository at `root`, or say why it is not there; once each.

    Raises `ProjectError`.
    """
    if (folder := store_folder(root)) != root:
        where = f"MLflow's store is {folder}/mlflow.db"
        why = f"{why_not_in_tree(root)}, so {where}"
        warn(f"{why}; `dvc-mlflow run` sends what scripts log there, too")
    elif problem := _hide(root):
        warn(problem)


def _hide(root: Path) -> str:
    """Append to `info/exclude` what it lacks; return why that is impossible, or ""."""
    file = common_folder(root) / "info" / "exclude"
    folder = folder_of(root, checkout(root))
    start = f"/{literal(folder)}/" if folder else "/"
    try:
        file.parent.mkdir(exist_ok=True)
        with file.open("a+b") as opened:
            opened.seek(0)
            existing = opened.read().split(b"\n")
            lines = [os.fsencode(start + name) for name in _HIDDEN]
            if new := [line for line in lines if line not in existing]:
                end = [b""] if existing[-1] else []  # of a last line without one
                opened.write(b"\n".join([*end, _MARK.encode(), *new, b""]))
    except OSError as error:
        return f"{file}: {error.strerror}, so git shows MLflow's files as untracked"
    return ""
