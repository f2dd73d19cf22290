"""Where a result comes from: commit, branch, author, time; and the name of its row."""

import getpass
import os
import posixpath
import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

from .faults import masked
from .identity import Row, as_key, normal
from .keys import named_params, short_names
from .pipeline import Pipeline
from .project import Project, parse
from .repository import ask
from .tables import flatten

COMMIT, EXPERIMENT, SWEEP = "mlflow.source.git.commit", "dvc.exp_name", "sweep"
"""The tags with the commit, DVC's name of the experiment, and the sweeps that a row belongs to."""
SWEEP_VARIABLE = "SWEEP"
"""The environment variable with the name of the sweep for which this process works."""

_DIRTY = "mlflow.source.git.dirty"
_BRANCH, _REPOSITORY = "mlflow.source.git.branch", "mlflow.source.git.repoURL"


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
    kept: str = ""
    """The commit that has the results, if there is one."""
    tree: str = ""
    """That commit's tree."""
    names: Sequence[str] = ()
    """The branches, tags and experiments that have the results."""

    def tags(self) -> dict[str, str]:
        """Return MLflow's standard tags."""
        found = {
            "mlflow.user": self.user,
            "mlflow.source.type": "LOCAL",
            COMMIT: self.commit,
            _DIRTY: str(self.is_dirty).lower() if self.commit else "",
            _BRANCH: self.branch,
            _REPOSITORY: masked(_remote(Path.cwd())),
            EXPERIMENT: self.experiment,
            "git.names": ", ".join(self.names)[:5000],
            SWEEP: os.environ.get(SWEEP_VARIABLE, ""),
        }
        return {key: value for key, value in found.items() if value}


def of_commit(commit: str, given: str) -> Origin:
    """Return the origin of a commit's results; `given` is what the user called the commit."""
    refs = ask("for-each-ref", "--format=%(refname)", f"--points-at={commit}", "refs/exps")
    experiments = [ref.rpartition("/")[2] for ref in refs.splitlines() if ref.count("/") == 4]
    is_branch = bool(ask("rev-parse", "--verify", "-q", f"refs/heads/{given}"))
    experiment = given if given in experiments else next(iter(experiments), "")
    return _committed(commit, given if is_branch else "", experiment)


def of_workspace(project: Project, pipeline: Pipeline, began: int = 0) -> Origin:
    """Return the origin of the workspace's results, or of a stage that `began` (in ns) to run.

    If dvc.lock is committed, the results are those of the commit that changed it last. Else they
    are this user's, and the checkout is dirty if anything has changed but params and outputs, which
    the row has.
    """
    stages = pipeline.stages.values()
    files = sorted({posixpath.join(posixpath.dirname(s.group), "dvc.lock") for s in stages})
    locks = [project.root / file for file in files if (project.root / file).exists()]
    paths = [str(lock) for lock in locks]
    branch = ask("symbolic-ref", "--short", "-q", "HEAD")
    commit = ask("log", "-1", "--format=%H", "--", *paths) if locks and not began else ""
    if commit and not ask("status", "--porcelain", "--", *paths):
        return _committed(commit, branch, "")
    own = {out.path for stage in stages for out in stage.outs}
    own |= {params.file for stage in stages for params in stage.params}
    excluded = [f":(exclude,literal){path}" for path in (*paths, *(project.root / p for p in own))]
    changed = ask("status", "--porcelain", "-uno", "--", ":/", *excluded).splitlines()
    # `AD` is neither in the commit nor on disk: in a DVC project below git's root, `dvc exp run`
    # adds the stages' deps to git's index under paths that do not exist.
    dirty = any(not line.startswith("AD ") for line in changed)
    head = ask("rev-parse", "-q", "--verify", "HEAD")
    if began:
        experiment = os.environ.get("DVC_EXP_NAME", "")
        return Origin(head, branch, experiment, user(), began // 1_000_000, dirty)
    time = max((lock.stat().st_mtime for lock in locks), default=0)
    return Origin(head, branch, "", user(), int(time * 1000), dirty)


def title(project: Project, row: Row, names: Sequence[str], origin: Origin) -> str:
    """Return a row's name: the project's folder, the item, and the params that differ from git's.

    If none differ, the experiment or the branch, and the short commit, follow instead.
    """
    folder = project.folder.rpartition("/")[2]
    items = [
        stage.item
        for name, stage in row.members.items()
        if stage.item and name == as_key(stage.group)
    ]
    parts = list(dict.fromkeys(part for part in [folder, *items] if part))
    values, changed = {}, []
    committed: dict[str, Mapping[str, object] | None] = {}
    for name, _, params, key in named_params(row, names):
        values[name] = normal(params.values[key])
        if params.file not in committed:
            committed[params.file] = _committed_params(project, origin.commit, params.file)
        before = committed[params.file]
        if before is not None and normal(before.get(key)) != values[name]:
            changed.append(name)
    short = short_names([*values])
    parts += [f"{short[name]}={values[name]}" for name in dict.fromkeys(changed)]
    if not changed:
        parts += [origin.experiment or origin.branch, origin.commit[:7]]
    return re.sub(r"\s+", " ", " ".join(part for part in parts if part))[:100] or "not in git"


def _committed_params(project: Project, commit: str, file: str) -> Mapping[str, object] | None:
    """Return the values in a params file of a commit, or None if there are none to read."""
    try:
        found = parse((project.committed(commit, file) or b"").decode(), file)
        return flatten(found) if isinstance(found, Mapping) else None
    except ValueError:
        return None


def _committed(commit: str, branch: str, experiment: str) -> Origin:
    text = ask("log", "-1", "--format=%an%x00%ct%x00%T", commit)
    user, time, tree = text.split("\0") if text else ("", "0", "")
    return Origin(commit, branch, experiment, user, int(time) * 1000, False, commit, tree)


@cache
def _remote(folder: Path) -> str:
    return ask("-C", str(folder), "config", "--get", "remote.origin.url")


def user() -> str:
    """Return the name of this process's user, or "" if the user has none."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # an id without a name, as in some containers
        return ""
