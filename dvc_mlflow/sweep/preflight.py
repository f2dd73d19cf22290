"""What can be known before the first trial: whether a node could clone what is here."""

import os
from argparse import Namespace
from pathlib import Path
from typing import Any

from ..errors import ProjectError, ToolError
from ..git import git, glob, text
from ..pipeline.tags import SWEEP_VARIABLE
from ..place import address, folder_of, main_repository
from ..project import Project
from ..project.default_remote import Remote
from ..project.experiments import uses_run_cache
from ..rows.origin import user
from .trials import digest

_SHARED = ("http://", "https://", "postgresql", "mysql", "mssql")
_PASSED_ON = ("MLFLOW_TRACKING_", "MLFLOW_S3_", "MLFLOW_HTTP_", "MLFLOW_EXPERIMENT_NAME", "AWS_")
_OWN = ("mlflow.db*", "mlartifacts", "restored")  # the tool's files, which git may not ignore


def order(
    project: Project, remote: Remote, commit: str, title: str, given: Namespace
) -> dict[str, Any]:
    """Return what all trials need; raises `ToolError` if a node could not clone what is here."""
    root = main_repository()
    own = [glob(folder_of(root, project.top), name).replace("(", "(exclude,", 1) for name in _OWN]
    if changed := text("status", "--porcelain", "--", ":/", *own).splitlines():
        raise ProjectError(f"{changed[0][3:]}: not committed, so no node would have it")
    url = text("remote", "get-url", "origin")
    git("fetch", "-q", "origin", seconds=600)
    if not text("branch", "-r", "--contains", commit, "--list", "origin/*"):
        raise ProjectError(f"{commit[:7]} is not in the git remote 'origin': `git push` it first")
    environment = _environment(root, shared=bool(given.address))
    sign = f"dvc-mlflow-{digest(url)}"
    remote.sign(sign)
    return {
        "commit": commit,
        "folder": project.folder,
        "refs": f"refs/exps/{commit[:2]}/{commit[2:]}/",  # where DVC keeps them
        "url": f"{Path(url).resolve()}" if Path(url).exists() else url,
        "dvc": remote.config(),
        "sign": sign,
        "run_cache": uses_run_cache(given.set_param),
        "environment": {**environment, SWEEP_VARIABLE: title},
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
