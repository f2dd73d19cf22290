"""Hide the repository's own store from git, by `info/exclude`: no file of the user's changes."""

import os
import re
from functools import cache
from pathlib import Path

from ..errors import ProjectError, warn
from ..repository import address, ask, git, own_address

_MARK = "# dvc-mlflow: MLflow's store, and what `dvc-mlflow restore` brings back"
_HIDDEN = {"mlflow.db": "mlflow.db*", "mlartifacts/x": "mlartifacts/", "restored/x": "restored/"}
"""The patterns, each after a path that git ignores if the user has hidden it already."""


@cache
def hide_store(root: Path) -> None:
    """Hide the store of the main repository at `root`; say why, but only once, if that fails.

    Raises `StoreError` if there can be no such store.
    """
    if address(root) == own_address(root) and (problem := _hide(root)):
        warn(problem)


def _hide(root: Path) -> str:
    """Hide the store; return why it cannot be hidden, or ""."""
    options = ("--show-prefix", "--path-format=absolute", "--git-path", "info/exclude")
    try:
        found = os.fsdecode(git("-C", f"{root}", "rev-parse", *options))
    except (OSError, ProjectError):  # no git, or not a repository
        return ""
    folder, _, path = found.removesuffix("\n").partition("\n")
    if tracked := ask("-C", f"{root}", "ls-files", "--", "mlflow.db", "mlartifacts"):
        name = tracked.partition("\n")[0].partition("/")[0]
        return f"git tracks {folder}{name}, so it shows new rows as changes"
    ignored = ask("-C", f"{root}", "check-ignore", "--no-index", "--", *_HIDDEN).splitlines()
    start = re.sub(r"([\\*?\[])", r"\\\1", folder)
    lines = [f"/{start}{line}" for path, line in _HIDDEN.items() if path not in ignored]
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
