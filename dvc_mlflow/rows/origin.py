"""Where a result comes from: commit, author and time."""

import getpass
import posixpath
import time
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

from ..errors import masked
from ..git import ask, own_head, remote_url
from ..pipeline.row import DIGITS, NOWHERE, UNCOMMITTED, Standing
from ..pipeline.stages import Pipeline
from ..pipeline.tags import (
    CHANGE,
    COMMIT,
    EXPERIMENT,
    REPOSITORY,
    SOURCE_TYPE,
    USER,
    as_text,
)
from ..project.project import Project


class KeptTree(NamedTuple):
    """A commit that has results, and its git tree."""

    commit: str
    tree: str
    lacks: Sequence[str] = ()
    """The files of the checkout that are not in it, and why."""


class Origin(NamedTuple):
    """Where the results of one dvc.lock come from."""

    commit: str
    experiment: str
    """DVC's name of the experiment, if it is one."""
    user: str
    time: int
    """Milliseconds since 1970."""
    is_row: bool = False
    """Whether only the tool has committed it."""
    is_committed: bool = False
    """Whether somebody has committed the results, and DVC not only as an experiment."""
    kept: KeptTree | None = None
    """The commit that has the results, if there is one."""
    base: str = ""
    """The commit that the work started from: HEAD, or the first parent of `commit`."""
    subject: str = ""
    """Of `commit` if somebody has committed the results there, else of `base`."""
    is_repeated: bool = False
    """Whether other commits have the same subject."""

    @property
    def rank(self) -> int:
        """2 if somebody has committed it, 1 if only DVC has, as an experiment; else 0."""
        return 2 if self.is_committed else int(self.kept is not None and not self.is_row)

    @property
    def standing(self) -> Standing:
        """Where a result of this origin stands in git."""
        return Standing(self.rank, self.time // 1000, self.commit) if self.rank else NOWHERE

    def tags(self, top: Path) -> dict[str, str]:
        """Return MLflow's standard tags, and those that people read; `top` is a checkout's root."""
        start = self.commit if self.is_committed else self.base
        change = f"{start[:DIGITS]} {self.subject}".strip()[:200]
        tags = {
            CHANGE: change if self.is_committed or not start else f"{UNCOMMITTED}{change}",
            USER: self.user,
            SOURCE_TYPE: "LOCAL",
            COMMIT: self.commit,
            REPOSITORY: masked(_remote(top)),
            EXPERIMENT: self.experiment,
        }
        return {key: as_text(value) for key, value in tags.items() if value}


def of_commit(top: Path, commit: str) -> Origin:
    """Return the origin of results that a commit has; `top` is the checkout's root."""
    text = ask("log", "-1", "--format=%an%x00%ct%x00%T%x00%P%x00%s", commit, cwd=top)
    author, at, tree, parents, subject = text.split("\0", 4) if text else ("", "0", "", "", "")
    base, kept = parents.partition(" ")[0], KeptTree(commit, tree)
    return Origin(commit, "", author, int(at) * 1000, False, True, kept, base, subject)


def of_workspace(project: Project, pipeline: Pipeline) -> Origin:
    """Return the origin of results of the workspace that no commit has: they are this user's."""
    folders = {posixpath.dirname(stage.group) for stage in pipeline.stages.values()}
    locks = (project.root / folder / "dvc.lock" for folder in folders)
    times = [lock.stat().st_mtime for lock in locks if lock.exists()]
    return of_running(project, "", int(max(times, default=time.time()) * 1e9))


def of_running(project: Project, experiment: str, began: int) -> Origin:
    """Return the origin of the results of a stage that `began` (in ns) to run."""
    head, subject = own_head(project.top)
    time = began // 1_000_000
    return Origin(head, experiment, user(), time, base=head, subject=subject)


_remote = cache(remote_url)


def user() -> str:
    """Return the name of this process's user, or "" if the user has none."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # an id without a name, as in some containers
        return ""
