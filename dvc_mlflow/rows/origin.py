"""Where a result comes from: commit, branch, author and time."""

import getpass
import posixpath
import time
from collections.abc import Sequence, Set
from functools import cache
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from ..errors import masked
from ..git import ask, remote_url
from ..pipeline.row import UNCOMMITTED
from ..pipeline.stages import Pipeline
from ..pipeline.tags import (
    BRANCH,
    CHANGE,
    COMMIT,
    DIRTY,
    EXPERIMENT,
    NAMES,
    REPOSITORY,
    SOURCE_TYPE,
    USER,
)
from ..pipeline.tags import text as as_text
from ..project import Project

_LONGEST_CHANGE = 200  # characters


class KeptTree(NamedTuple):
    """A commit that has results, and its git tree."""

    commit: str
    tree: str
    lacks: Sequence[str] = ()
    """The files of the checkout that are not in it, and why."""


class Origin(NamedTuple):
    """Where the results of one dvc.lock come from."""

    commit: str
    branch: str
    experiment: str
    """DVC's name of the experiment, if it is one."""
    user: str
    time: int
    """Milliseconds since 1970."""
    is_dirty: bool
    kept: KeptTree | None = None
    """The commit that has the results, if there is one."""
    names: Sequence[str] = ()
    """The branches, tags and experiments that have the results."""
    base: str = ""
    """The commit that the work started from: HEAD, or the first parent of `commit`."""
    subject: str = ""
    """Of `commit` if somebody has committed the results there, else of `base`."""

    @property
    def is_committed(self) -> bool:
        """Whether somebody has committed the results, and DVC not only as an experiment."""
        own = self.kept is not None and self.kept.commit == self.commit
        return own and not self.is_dirty and bool(self.branch or not self.experiment)

    def tags(self, top: Path) -> dict[str, str]:
        """Return MLflow's standard tags, and those that people read; `top` is a checkout's root."""
        start = self.commit if self.is_committed else self.base
        change = f"{start[:7]} {self.subject}".strip()[:_LONGEST_CHANGE]
        found = {
            CHANGE: change if self.is_committed or not start else f"{UNCOMMITTED}{change}",
            USER: self.user,
            SOURCE_TYPE: "LOCAL",
            COMMIT: self.commit,
            DIRTY: str(self.is_dirty).lower() if self.commit else "",
            BRANCH: self.branch,
            REPOSITORY: masked(_remote(top)),
            EXPERIMENT: self.experiment,
            NAMES: ", ".join(self.names)[:5000],
        }
        return {key: as_text(value) for key, value in found.items() if value}


def of_commit(top: Path, commit: str) -> Origin:
    """Return the origin of results that a commit has; `top` is the checkout's root."""
    text = ask("log", "-1", "--format=%an%x00%ct%x00%T%x00%P%x00%s", commit, cwd=top)
    author, at, tree, parents, subject = text.split("\0", 4) if text else ("", "0", "", "", "")
    base, kept = parents.partition(" ")[0], KeptTree(commit, tree)
    return Origin(commit, "", "", author, int(at) * 1000, False, kept, (), base, subject)


def of_experiment(top: Path, of: Origin, name: str) -> Origin:
    """Return the origin `of` a commit as that of one of DVC's experiments."""
    subject = _subject(top, of.base) if of.base else ""
    return of._replace(experiment=name, names=[name], subject=subject)


def of_workspace(project: Project, pipeline: Pipeline) -> Origin:
    """Return the origin of results of the workspace that no commit has: they are this user's."""
    times = [lock.stat().st_mtime for lock in _locks(project, pipeline)]
    return _uncommitted(project, pipeline, "", int(max(times, default=time.time()) * 1000))


def of_running(project: Project, pipeline: Pipeline, experiment: str, began: int) -> Origin:
    """Return the origin of the results of a stage that `began` (in ns) to run."""
    return _uncommitted(project, pipeline, experiment, began // 1_000_000)


def _uncommitted(project: Project, pipeline: Pipeline, experiment: str, time: int) -> Origin:
    """Return the origin of what is not committed.

    The checkout is dirty if anything has changed but params and outputs, which the row has.
    """
    options = ("--porcelain=v2", "--branch", "--no-renames", "-uno", "-z")
    text = ask("status", *options, cwd=project.top)
    entries = text.split("\0")
    head = dict(entry[2:].split(" ", 1) for entry in entries if entry.startswith("# "))
    stages = pipeline.stages.values()
    own = {out.path for stage in stages for out in stage.outs}
    own |= {params.file for stage in stages for params in stage.params}
    own |= {lock.relative_to(project.root).as_posix() for lock in _locks(project, pipeline)}
    paths = {posixpath.normpath(posixpath.join(project.folder, path)) for path in own}
    changed = (_changed(entry) for entry in entries if entry[:2] in ("1 ", "u "))
    dirty = any(path and not _is_in(path, paths) for path in changed)
    commit, branch = head.get("branch.oid", ""), head.get("branch.head", "")
    commit = "" if commit == "(initial)" else commit
    return Origin(
        commit,
        "" if branch == "(detached)" else branch,
        experiment,
        user(),
        time,
        dirty,
        base=commit,
        subject=_subject(project.top, commit) if commit else "",
    )


def _locks(project: Project, pipeline: Pipeline) -> list[Path]:
    folders = {posixpath.dirname(stage.group) for stage in pipeline.stages.values()}
    files = (project.root / posixpath.join(folder, "dvc.lock") for folder in sorted(folders))
    return [file for file in files if file.exists()]


def _changed(entry: str) -> str:
    """Return the path in an entry of `git status`, unless nothing has changed there.

    `AD` is neither in the commit nor on disk: in a DVC project below git's root, `dvc exp run` adds
    the stages' deps to git's index under paths that do not exist.
    """
    _, state, *rest = entry.split(" ", 8 if entry[0] == "1" else 10)
    return "" if state == "AD" else rest[-1]


def _is_in(path: str, known: Set[str]) -> bool:
    """Whether a path, or a folder that it is in, is known."""
    return path in known or any(f"{parent}" in known for parent in PurePosixPath(path).parents)


@cache
def _subject(top: Path, commit: str) -> str:
    return ask("log", "-1", "--format=%s", commit, cwd=top)


_remote = cache(remote_url)


def user() -> str:
    """Return the name of this process's user, or "" if the user has none."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # an id without a name, as in some containers
        return ""
