"""Hide the repository's own store from git, by `info/exclude`: no file of the user's changes."""

import os
from functools import cache
from pathlib import Path

from ..errors import warn
from ..git import checkout, common_folder, literal
from ..place import address, artifacts_folder, folder_of, own_address, store_folder, why_not_in_tree

_MARK = "# dvc-mlflow: MLflow's store, and what `dvc-mlflow restore` brings back"
_HIDDEN = ("mlflow.db*", "mlartifacts/", "restored/")


@cache
def hide_store(root: Path) -> None:
    """Hide what the store has in the main repository at `root`; once each.

    If its own store cannot be there, say why. Raises `ProjectError`.
    """
    folder = store_folder(root)
    if folder == root == artifacts_folder(root).parent:  # so it is for a database elsewhere, too
        _hide(root)
    elif address(root) == own_address(root):
        where = f"MLflow's store is {folder}/mlflow.db"
        why = f"{why_not_in_tree(root)}, so {where}"
        warn(f"{why}; `dvc-mlflow run` sends what scripts log there, too")


def _hide(root: Path) -> None:
    """Append to `info/exclude` what it lacks, or say why that is impossible."""
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
        warn(f"{file}: {error.strerror}, so git shows MLflow's files as untracked")
