"""`dvc-mlflow restore RUN`: a row's code, params and files in a folder of their own."""

import argparse
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from mlflow.entities import Run

from ..errors import ProjectError, ToolError, say, warn
from ..pipeline.stages import is_inside
from ..pipeline.tags import (
    BEGUN,
    CHOSEN,
    COMPLETE,
    FOLDER,
    FOUND_BY,
    KEPT,
    REPRODUCES,
    TOKEN,
    TREE,
    tagged,
    value,
)
from ..place import environment, main_repository
from ..project import restore
from ..rows import kept_trees
from ..rows.content import params_of, part_of
from ..rows.origin import KeptTree
from ..rows.restored_folder import RestoredFolder, opened, place
from ..rows.result import State
from ..store.named_row import read_run
from ..store.run_data import as_stored

_NONE = "no dvc.lock in the row's git trees has its results"
_LACKED = "git lacks it; `git fetch --refetch --no-filter` completes a partial clone"


class _Wanted(NamedTuple):
    """What a row says of its results."""

    digests: Mapping[str, str]
    """By the stages' names in the row."""
    kept: Sequence[KeptTree]
    """The git trees that have them, the last result's first."""
    chosen: Sequence[str]
    """The recorded stages by name, if they are not those that dvc.yaml chooses."""
    project: str
    """The folder of the DVC project in its repository."""


def run(given: argparse.Namespace) -> int:
    """Restore the row that the command line names; return the exit status."""
    root, named = main_repository().resolve(), given.run
    row = read_run(root, named)
    if other := row.data.tags.get(REPRODUCES):
        row = read_run(root, other)
        say(f"{named}: has the result of row {row.info.run_name!r}, which is restored")
    wanted = _wanted(named, row)
    commits = _commits(root, wanted)
    digits = value(row.data.tags, FOUND_BY).split()
    path = place(root, row.info.run_name or "", digits, row.info.run_id)
    shown = path.relative_to(root)
    with opened(root, path, wanted.project, commits[0]) as folder:
        if not folder.is_new:
            say(f"{shown}: already exists")
        problems = _restore(folder, row, wanted, commits)
    if folder.is_new:
        say(f"{shown}: created")
    for link in folder.left_out:
        say(f"{shown / link}: is a link that leads out of the folder; left out")
    problems += [f"{name} is missing: {_LACKED}" for name in dict.fromkeys(folder.lacks)]
    for problem in problems:
        warn(f"{shown / wanted.project}: {problem}")
    if not problems:
        say(f"{shown / wanted.project}: restored, with the md5s of its dvc.lock")
    return bool(problems)


def _wanted(named: str, row: Run) -> _Wanted:
    """Return what a row says of its results, without what is no hash in its tags.

    Raises `ToolError` if that is nothing that can be restored.
    """
    tags = row.data.tags
    digests = {**tagged(tags, BEGUN), **tagged(tags, COMPLETE)}
    if not digests:
        how = f"it is {row.info.status}"
        if row.info.status == "FINISHED":
            how = "a script made it, or an older version of dvc-mlflow"
        raise ToolError(f"{named}: this row has no result to restore; {how}")
    if not is_inside(project := value(tags, FOLDER)):
        raise ToolError(f"{named}: its folder {project!r} leads out of the repository")
    commits, kept = tagged(tags, KEPT), []
    for name, tree in tagged(tags, TREE).items():
        commit = commits.get(name, "")
        if kept_trees.is_hash(tree) and kept_trees.is_hash(commit):
            kept.append(KeptTree(commit, tree))
    if not kept:
        raise ToolError(f"{named}: this row names no git tree; it was recorded outside git")
    chosen = value(tags, CHOSEN).splitlines()
    return _Wanted(digests, [*dict.fromkeys(reversed(kept))], chosen, project)


def _commits(root: Path, wanted: _Wanted) -> list[str]:
    """Return a commit with each of a row's trees that can be had; raises `ProjectError` if none."""
    found, errors = [], []
    for kept in wanted.kept:
        try:
            found.append(kept_trees.find(root, kept))
        except ProjectError as error:
            errors.append(error)
    if not found:
        raise errors[0]
    return found


def _restore(
    folder: RestoredFolder, row: Run, wanted: _Wanted, commits: Sequence[str]
) -> list[str]:
    """Bring a row's files into its folder; return what is wrong, and print what else to know."""
    digests, having, errors = {*wanted.digests.values()}, dict[str, int](), list[str]()
    for commit in commits:
        try:
            with folder.at(commit, wanted.chosen) as found:
                having[commit] = len(found.having(digests))
        except ProjectError as error:
            errors.append(f"DVC cannot read it: {error}")
        if having.get(commit) == len(digests):
            break
    if not any(having.values()):
        return errors[:1] or [_NONE]
    with folder.at(max(having, key=lambda commit: having[commit]), wanted.chosen) as found:
        stages = found.having(digests)
        scope = found.pipeline.scope(stages)
        problems, status = restore(found.project, scope, folder.main, is_new=folder.is_new)
        gone = digests - {found.locked[stage.name] for stage in stages}
        lacking = [name for name, digest in wanted.digests.items() if digest in gone]
        problems += [f"no dvc.lock in the row's git trees has its result of {n}" for n in lacking]
        notes = [*_machine(found, row), *(f"`dvc status` there: {line}" for line in status)]
        if not problems:
            is_scripted = value(row.data.tags, TOKEN)  # it can show other values than DVC's
            (notes if is_scripted else problems).extend(_differences(found, wanted, row))
    for note in notes:
        say(note)
    return problems


def _differences(found: State, wanted: _Wanted, row: Run) -> Iterator[str]:
    """Yield where a row differs from its files."""
    result = found.result_with(wanted.digests)
    if result is None:  # an older version has named its stages in another way
        return
    for key, text in params_of(result)[0].items():
        if row.data.params.get(key, text) != text:
            yield f"param {key!r} is {text!r}, the row says {row.data.params[key]!r}"
    points = [point for name in wanted.digests for point in part_of(result, name).points]
    last = {point.key: point.value for point in sorted(points, key=lambda point: point.step)}
    for key, number in last.items():
        stored = as_stored(number)
        if not math.isnan(number) and row.data.metrics.get(key, stored) != stored:
            yield f"metric {key!r} is {number}, the row says {row.data.metrics[key]}"


def _machine(found: State, row: Run) -> Iterator[str]:
    """Yield how this machine differs from the one that made a row."""
    for key, here in environment(found.project.md5("requirements.txt")).items():
        if here and row.data.tags.get(key, here) != here:
            yield f"{key}: the row was made with {row.data.tags[key]}; here it is {here}"
