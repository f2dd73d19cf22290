"""Show in MLflow what git's tags register: GTO's versions, and its stages as aliases."""

import posixpath
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

from ..store.store import Store, exists  # before MLflow, which it sets up

# isort: split
from ..errors import ProjectError, say, warn
from ..pipeline.stages import leads_out
from ..place import address
from ..project import Project
from ..store import database
from ..store.stores import AT_MOST
from . import registered_models
from .looked import Looked
from .tagged import Tagged
from .view import View, registered_name, shown


class Shown(NamedTuple):
    """What has changed in MLflow, and what could not, one line each."""

    done: list[str]
    notes: list[str]


def show(
    project: Project, root: Path, *, dry: bool = False, moves: Collection[tuple[str, str]] = ()
) -> Shown:
    """Show the registry of a project; `dry` writes nothing.

    `moves` are the stages, by artifact, whose aliases a promotion takes over from whoever made
    them. Raises `ToolError`.
    """
    looked = Looked(root, project.folder)
    if not looked.is_needed:
        return Shown([], [])
    if not exists(root):
        if not dry:
            looked.write((), None, is_open=True)
        return Shown([], [])
    if not moves and looked.is_shown(database.changes(address(root))):
        return Shown([], [])
    from ..project import registry  # GTO takes a third of a second

    said = registry.read(project.top, looked.had)
    own = {name: each for name, each in sorted(said.items()) if is_of(project, name)}
    store = Store(root, folder=project.folder, create=False)
    with store.errors_reported():
        there = {name: registered_models.read(store.client, registered_name(name)) for name in own}
    lacking = [v for name in own for v in own[name].versions if shown(there[name], v) is None]
    with Tagged(project, root, store) as tagged:
        found = {version.tag: tagged.find(version) for version in lacking}
    view = View(store, found, looked.had, {tag for each in said.values() for tag in each.tags}, dry)
    with store.errors_reported(AT_MOST):
        for name, each in own.items():
            view.show(name, there[name], each, moves)
    notes = view.notes()
    if not dry:
        looked.write(view.tags, database.changes(address(root)), is_open=bool(notes))
    return Shown(view.done, notes)


def show_and_say(project: Project, root: Path, *, dry: bool = False) -> None:
    """Show the registry of a project, and print what has changed."""
    try:
        done, notes = show(project, root, dry=dry)
    except ProjectError as error:
        done, notes = [], [f"{error}"]
    for line in done:
        say(line)
    for line in notes:
        warn(line)


def is_of(project: Project, artifact: str) -> bool:
    """Whether an artifact is of a project, not of one around it, beside it or in it."""
    folder = artifact.rpartition(":")[0]
    within = posixpath.relpath(folder or ".", project.folder or ".")
    if leads_out(within):
        return False
    parts = [] if within == "." else within.split("/")
    inner = (project.root.joinpath(*parts[: n + 1]) for n in range(len(parts)))
    return not any((path / ".dvc").is_dir() for path in inner)
