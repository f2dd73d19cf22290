"""What a `dvc` has left behind that no command of a stage made: results from DVC's run cache.

They are new in a dvc.lock, or in an experiment, but their stages did not run.
"""

import os
import posixpath
from collections.abc import Mapping, Set
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import yaml

from .. import own_files
from ..errors import ProjectError, ToolError, warn
from ..fast_imports import without_collector
from ..git import ask, checkout, glob, is_experiment, names
from ..place import folder_of, main_repository, project_folder
from ..registry.looked import Looked
from .protocol import LATER


class Seen(NamedTuple):
    """The results of a project at one moment."""

    locks: Mapping[str, str]
    """The text of each dvc.lock, by its path in the project."""
    experiments: frozenset[str]
    """The commits of DVC's experiments."""


def look(root: Path) -> Seen:
    """Return the results of the project at `root`."""
    refs = ask("for-each-ref", "--format=%(objectname) %(refname)", "refs/exps", cwd=root)
    lines = [line.split(" ", 1) for line in refs.splitlines()]
    own = frozenset(commit for commit, ref in lines if is_experiment(ref))
    return Seen({path: _read(root / path) for path in files(root, "dvc.lock")}, own)


def files(root: Path, name: str) -> set[str]:
    """Return the files of a project with this name, wherever they are in it."""
    folder = folder_of(root, checkout(root))
    options = ("-co", "--exclude-standard", "-z", "--", glob(folder, f"**/{name}"))
    try:
        listed = names("ls-files", *options, cwd=root)
        return {posixpath.relpath(path, folder or ".") for path in listed}
    except (OSError, ProjectError):  # no git
        return {path.relative_to(root).as_posix() for path in root.rglob(name)}


def record(root: Path, before: Seen, ran: Set[str]) -> None:
    """Record what is new since then, except for the stages that ran; an error is only reported."""
    try:
        now = look(root)
        stages = _new(before.locks, now.locks) - ran
        known = _known(root, before)
        found = {c: _new_in(root, c, before.locks) for c in now.experiments - known}
        own = now.experiments - before.experiments
        if len(own) == 1:  # what ran, ran in it; a queue has several
            found |= {c: found[c] - ran for c in own & found.keys()}
        experiments = {commit: new for commit, new in found.items() if new}
        if stages or experiments:
            _new_rows().record(stages, experiments)
        _show_registry(bool(ran or stages or experiments))
        file = _known_file(root)
        if now.experiments != known or not file.exists():
            own_files.write(f"{file}", "\n".join(sorted(now.experiments)).encode())
    except KeyboardInterrupt:
        warn(f"stopped while results of DVC's run cache were recorded; {LATER}")
    except Exception as error:
        what = f"{error}" if isinstance(error, ToolError) else f"{type(error).__name__}: {error}"
        warn(
            f"results of DVC's run cache are not recorded: {' '.join(what.split())[:500]}; {LATER}"
        )


def _show_registry(has_rows: bool) -> None:
    """Let MLflow show git's tags if they have changed, or if a row may be there that it lacked."""
    looked = Looked(main_repository(), project_folder())
    if looked.has_new or (looked.is_open and has_rows):
        try:
            _new_rows().show_registry()
        except ToolError as error:
            warn(f"MLflow does not show git's registry: {error}; {LATER}")


def _new_rows() -> ModuleType:
    """Import what writes to MLflow, which takes seconds."""
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "8")  # as for a stage
    with without_collector():
        from . import new_rows
    return new_rows


def _known_file(root: Path) -> Path:
    return root / own_files.FOLDER / "experiments"


def _known(root: Path, before: Seen) -> frozenset[str]:
    """Return the experiments that were there, or looked at, when this was last called."""
    file = _known_file(root)
    return frozenset(file.read_text().split()) if file.exists() else before.experiments


def _new_in(root: Path, commit: str, before: Mapping[str, str]) -> set[str]:
    """Return the stages of an experiment whose results its baseline and the workspace lack."""
    base, folder = f"{commit}^", folder_of(root, checkout(root))
    options = ("-r", "--name-only", "-z", base, commit)
    try:
        changed = names("diff-tree", *options, "--", glob(folder, "**/dvc.lock"), cwd=root)
    except ProjectError:  # a shallow clone can lack the baseline
        return set()
    old, new = (
        {posixpath.relpath(p, folder or "."): _committed(root, c, p) for p in changed}
        for c in (base, commit)
    )
    return _new(old, new) & _new(before, new)


def _committed(root: Path, commit: str, path: str) -> str:
    return ask("cat-file", "blob", f"{commit}:{path}", cwd=root)


def _new(old: Mapping[str, str], new: Mapping[str, str]) -> set[str]:
    """Return the stages whose entries in these dvc.lock files differ, or are new."""
    found = set()
    for path, text in new.items():
        if text != (known := old.get(path, "")):
            before = _entries(known)
            entries = _entries(text).items()
            folder = posixpath.dirname(path)
            found |= {posixpath.join(folder, s) for s, entry in entries if before.get(s) != entry}
    return found


def _entries(text: str) -> Mapping[str, object]:
    try:
        return dict(yaml.load(text, yaml.CSafeLoader)["stages"])
    except (yaml.YAMLError, LookupError, TypeError, ValueError):
        return {}


def _read(file: Path) -> str:
    try:
        return file.read_text()
    except (OSError, ValueError):
        return ""
