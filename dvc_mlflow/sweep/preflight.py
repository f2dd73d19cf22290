"""What can be known before the first trial: whether a node could do it, and its result be kept."""

import os
import secrets
import signal
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

from ..errors import ProjectError, ToolError
from ..git import git, glob, text
from ..pipeline.keys import labels, prefix
from ..pipeline.row_stages import divided, recorded
from ..pipeline.tags import SWEEP_VARIABLE
from ..place import address, folder_of, main_repository
from ..project.default_remote import Remote, inputs, untracked
from ..project.definitions import read_pipeline
from ..project.experiments import blame
from ..project.project import Project
from ..rows.content import part_of
from ..rows.origin import user
from ..rows.result import read_state
from .node import ANSWERING, CLONING
from .points import digest

_SHARED = ("http://", "https://", "postgresql", "mysql", "mssql")
_PASSED_ON = ("MLFLOW_TRACKING_", "MLFLOW_S3_", "MLFLOW_HTTP_", "MLFLOW_EXPERIMENT_NAME", "AWS_")
_OWN = ("mlflow.db*", "mlartifacts", "restored")  # the tool's files, which git may not ignore


def metric(project: Project, given: str) -> None:
    """Raise `ToolError` if no stage in dvc.yaml can have this metric, and say which was meant."""
    name, pipeline = given.removeprefix("-"), read_pipeline(project)
    parts = [
        part_of(result, each) for result in read_state(project).results() for each in result.digests
    ]
    known = sorted({point.key for part in parts for point in part.points})
    starts = {
        prefix(stage, labels(row_stages)[stage.name])
        for row_stages in divided(pipeline, recorded(pipeline))
        for stage in row_stages.scope()
        if pipeline.metrics_paths(stage) or pipeline.plots_of(stage)
    }
    if name in known:
        return
    near = [key for key in known if key.endswith(f"/{name}")] + get_close_matches(name, known, 1)
    near += [] if name.startswith(tuple(starts)) else [f"{start}{name}" for start in sorted(starts)]
    if near or not starts:
        meant = f"; is it '{near[0]}'?" if near else ""
        raise ToolError(f"--metric: no stage in dvc.yaml has '{name}'{meant}")


@contextmanager
def answering(remote: Remote, seconds: int = ANSWERING) -> Iterator[None]:
    """Turn whatever a DVC remote's library raises, and its silence, into `ProjectError`."""
    try:
        with _deadline(seconds):
            yield
    except ToolError:
        raise
    except FileNotFoundError:
        raise ProjectError(f"{remote.place}: it is not there: mount it, or make it") from None
    except Exception as error:
        raise ProjectError(blame(error, at_remote=remote.place)[1]) from None


@contextmanager
def _deadline(seconds: int) -> Iterator[None]:
    """Raise `TimeoutError` if the block takes longer; for the main thread only."""

    def late(*_: object) -> None:
        raise TimeoutError(f"no full answer within {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    outer = signal.setitimer(signal.ITIMER_REAL, seconds, 1)  # repeated, in case a library retries
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, *outer)
        signal.signal(signal.SIGALRM, before)


def inputs_are_there(project: Project, remote: Remote) -> None:
    """Raise `ProjectError` if a node could not get what a stage reads."""
    for path in untracked(project):
        raise ProjectError(f"{path}: neither git nor DVC tracks it, so no node would have it")
    read = inputs(project)
    for md5 in remote.lacking(read):
        raise ProjectError(f"{read[md5]}: not in the {remote.place}: `dvc push` it first")


def order(project: Project, commit: str, title: str, given: Namespace) -> dict[str, Any]:
    """Return what all trials need; raises `ToolError` if a node could not clone what is here."""
    root = main_repository()
    own = [glob(folder_of(root, project.top), name).replace("(", "(exclude,", 1) for name in _OWN]
    if changed := text("status", "--porcelain", "--", ":/", *own).splitlines():
        raise ProjectError(f"{changed[0][3:]}: not committed, so no node would have it")
    url = text("remote", "get-url", "origin")
    git("ls-remote", "-q", "origin", "HEAD", seconds=ANSWERING)
    git("fetch", "-q", "origin", seconds=CLONING)
    if not text("branch", "-r", "--contains", commit, "--list", "origin/*"):
        raise ProjectError(f"{commit[:7]} is not in the git remote 'origin': `git push` it first")
    checked = [] if given.any_versions else [*distributions()]
    return {
        "commit": commit,
        "folder": project.folder,
        "versions": {one.name: one.version for one in reversed(checked)},
        "url": f"{Path(url).resolve()}" if Path(url).exists() else url,
        "dvc": Remote(project).config(),
        "sign": f"dvc-mlflow-sweep-{secrets.token_hex(4)}",
        "environment": {**_environment(root, shared=bool(given.address)), SWEEP_VARIABLE: title},
        "timeout": given.timeout,
        "clones": f"{given.clones}/dvc-sweep-{digest(url)}",
    }


def _environment(root: Path, *, shared: bool) -> dict[str, str]:
    """Return the variables that a trial needs: for the tracking server, the user and git."""
    given = os.environ.get("MLFLOW_TRACKING_URI", "")
    if shared and not given.startswith(_SHARED):
        must = "must name a server or database that every node reaches"
        raise ToolError(f"MLFLOW_TRACKING_URI: {must}; received '{given}'")
    passed = {k: v for k, v in os.environ.items() if k.startswith(_PASSED_ON)}
    passed["MLFLOW_TRACKING_URI"] = address(root)  # the driver's own store, not one in each clone
    if not given.startswith("http"):
        # Where an experiment that a script creates has its files; MLflow would choose the clone.
        passed["_MLFLOW_SERVER_ARTIFACT_ROOT"] = (root / "mlartifacts").as_uri()
    passed["LOGNAME"] = user()  # of runs that a script makes
    name, email = text("var", "GIT_COMMITTER_IDENT").rpartition(">")[0].split(" <")
    for role in ("AUTHOR", "COMMITTER"):
        passed |= {f"GIT_{role}_NAME": name, f"GIT_{role}_EMAIL": email}
    return passed
