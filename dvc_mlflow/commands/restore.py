"""`dvc-mlflow restore RUN`: a row's code, params and files in a folder of their own."""

import argparse
import math
import os
import re
from collections.abc import Mapping, Sequence
from contextlib import chdir, suppress
from pathlib import Path

from mlflow.entities import Run

from .. import state, trees
from ..content import content_of, params_of
from ..errors import ProjectError, ToolError, say, warn
from ..identity import Row
from ..project import Project, restore, share
from ..repository import environment, git, main_repository
from ..store import read_run
from ..tags import COMPLETE, KEPT, TREE, tagged
from ..trees import Kept


def run(given: argparse.Namespace) -> int:
    """Restore the row that the command line names; return the exit status."""
    root = main_repository().resolve()
    row = read_run(root, given.run)
    results = tagged(row.data.tags, COMPLETE)
    kept = _kept(row)
    if not results and row.info.status != "FINISHED":
        raise ToolError(f"{given.run}: this row has no result to restore; it is {row.info.status}")
    if not kept or not results:
        reason = "it was made by an older version, or outside git"
        raise ToolError(f"{given.run}: this row names no git tree; {reason}")
    folder, exists = _place(root, row)
    if not exists:
        _make(root, folder, row, trees.find(root, kept[0]))
    shown = folder.relative_to(root)
    say(f"{shown}: {'already exists' if exists else 'created'}")
    problems = _restore(root, folder, row, results, kept)
    for problem in problems:
        warn(f"{shown}: {problem}")
    if not problems:
        say(f"{shown}: restored; `dvc status` there reports that its stages are up to date")
    return bool(problems)


def _kept(run: Run) -> list[Kept]:
    """Return the trees of a row, the last result's first, without what is no hash in its tags."""
    commits, found = tagged(run.data.tags, KEPT), []
    for name, tree in tagged(run.data.tags, TREE).items():
        commit = commits.get(name, "")
        if re.fullmatch("[0-9a-f]{40,64}", tree) and re.fullmatch("[0-9a-f]{40,64}", commit):
            found.append(Kept(commit, tree))
    return list(dict.fromkeys(reversed(found)))


def _restore(
    root: Path, folder: Path, run: Run, results: Mapping[str, str], kept: Sequence[Kept]
) -> list[str]:
    """Bring a row's files into its folder; return what is wrong, one line each."""
    top = Path(os.fsdecode(git("rev-parse", "--show-toplevel", cwd=root)).strip())
    for each in kept:
        commit = trees.find(root, each)
        git("-c", f"core.hooksPath={os.devnull}", "checkout", "-q", "--detach", commit, cwd=folder)
        for place in sorted(folder.glob("**/.dvc")):
            share(top, folder, place)
            with chdir(place.parent), Project() as project:
                found = state.read(project)
                for row in found.rows():
                    if results.items() <= found.wanted(row).items():
                        small = trees.small_outputs(root, each.commit)
                        problems = restore(project, found.pipeline, row.scope(results), small)
                        return [*problems, *_differences(found, row, results, run)]
    return [
        "no dvc.lock in the row's git trees has the row's results; somebody has changed the row"
    ]


def _differences(found: state.State, row: Row, names: Mapping[str, str], run: Run) -> list[str]:
    """Return where a row differs from its files; print how the machine differs."""
    params, _ = params_of(row, [*names])
    said = run.data.params
    different = [
        f"param {key!r} is {value!r}, the row says {said[key]!r}"
        for key, value in params.items()
        if said.get(key, value) != value
    ]
    last: dict[str, tuple[int, float]] = {}
    for name in names:
        for point in content_of(found.project, found.pipeline, row, name).points:
            if point.step >= last.get(point.key, (0, 0.0))[0]:
                last[point.key] = (point.step, point.value)
    different += [
        f"metric {key!r} is {value}, the row says {run.data.metrics[key]}"
        for key, (_, value) in last.items()
        if not math.isnan(value) and run.data.metrics.get(key, value) != value
    ]
    for key, here in environment(found.project.md5("requirements.txt")).items():
        if here and run.data.tags.get(key, here) != here:
            say(f"{key}: the row was made with {run.data.tags[key]}; here it is {here}")
    return different


def _place(root: Path, run: Run) -> tuple[Path, bool]:
    """Return the row's folder, and whether it exists; two rows can have the same name."""
    name = re.sub(r"[^\w.=+-]+", "-", run.info.run_name or "").strip("-.")[:80] or run.info.run_id
    for folder in (root / "restored" / name, root / "restored" / f"{name}-{run.info.run_id[:8]}"):
        if not folder.exists():
            return folder, False
        with suppress(ProjectError, OSError):
            _attach(root, folder)
            if _mark(folder).read_text() == run.info.run_id:
                return folder, True
    raise ProjectError(f"{folder}: exists, but is not this row's folder; move it away")


def _make(root: Path, folder: Path, run: Run, commit: str) -> None:
    """Make the row's folder at a commit, whole or not at all."""
    folder.parent.mkdir(exist_ok=True)
    (folder.parent / ".gitignore").write_text("*\n")
    add = ["worktree", "add", "--force", "--detach", "--", str(folder), commit]
    try:
        # Without the user's hooks. Forced, because git still lists a folder that was deleted.
        git("-c", f"core.hooksPath={os.devnull}", *add, cwd=root)
        _mark(folder).write_text(run.info.run_id)
    except BaseException:
        with suppress(ProjectError):
            git("worktree", "remove", "--force", str(folder), cwd=root)
        raise


def _attach(root: Path, folder: Path) -> None:
    """Let a folder and its repository find each other after both were moved or copied.

    A copied folder names the repository that it was copied from, and git would write there.
    """
    common = git("rev-parse", "--path-format=absolute", "--git-common-dir", cwd=root)
    named = Path((folder / ".git").read_text().strip()).name
    own = Path(os.fsdecode(common).strip(), "worktrees", named)
    if own.is_dir() and (folder / ".git").read_text() != f"gitdir: {own}\n":
        (folder / ".git").write_text(f"gitdir: {own}\n")
        git("worktree", "repair", str(folder), cwd=root)


def _mark(folder: Path) -> Path:
    """Return the file in git's own directory that names the row of a folder."""
    return folder / os.fsdecode(git("rev-parse", "--git-path", "restored", cwd=folder)).strip()
