"""What a sweep starts from: a commit that nodes can clone, and remotes that they can push to."""

import argparse
import getpass
import os
import re
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ..errors import ProjectError, ToolError
from ..project import Project
from ..project.experiments import remote
from ..repository import address, checkout, default_experiment, git, main_repository
from .results import Result, read
from .search import digest

_SHARED = ("http://", "https://", "postgresql", "mysql", "mssql")
_PASSED_ON = ("MLFLOW_TRACKING_", "MLFLOW_S3_", "MLFLOW_HTTP_", "MLFLOW_EXPERIMENT_NAME", "AWS_")
_PIN = re.compile(r"^([\w.-]+)(?:\[[\w,.-]*\])?==([\w.!+]+)[ \\]*$", re.M)
_OWN = ("mlflow.db*", "mlartifacts", "restored")  # of the tool, wherever they are not ignored


def order(project: Project, commit: str, given: argparse.Namespace) -> dict[str, Any]:
    """Return what all trials need; raises `ToolError` if a node's clone cannot be what is here."""
    own = [f":(exclude,glob){name}" for name in _OWN]
    if changed := text("status", "--porcelain", "--", ":/", *own).splitlines():
        raise ProjectError(f"{changed[0][3:]}: not committed, so no node would have it")
    url = text("remote", "get-url", "origin")
    git("fetch", "-q", "origin")
    if not text("branch", "-r", "--contains", commit, "--list", "origin/*"):
        raise ProjectError(f"{commit[:7]} is not in the git remote 'origin': `git push` it first")
    if not (config := remote(project)):
        raise ProjectError("no DVC remote: `dvc remote add -d NAME URL` first")
    root = main_repository()
    return {
        "commit": commit,
        "folder": project.folder,
        "pins": [*_pins(project.root, given.pins), ("dvc-mlflow", version("dvc-mlflow"))],
        "refs": _refs(commit),
        "repository": default_experiment(root).replace("/", "-"),
        "url": f"{Path(url).resolve()}" if Path(url).exists() else url,
        "dvc": config,
        "environment": _environment(root, shared=bool(given.address)),
        "timeout": given.timeout,
        "clones": f"{given.clones}/dvc-sweep-{digest(url)}",
    }


def _pins(root: Path, given: str) -> list[tuple[str, str]]:
    """Return the packages that nodes must have, and their versions; without those for some only."""
    places = [folder / (given or "requirements.txt") for folder in (root, checkout(root))]
    file = next((place for place in places if place.is_file()), None)
    if given and not file:
        raise ToolError(f"--pins: there is no such file; received '{given}'")
    return _PIN.findall(file.read_text()) if file else []


def _environment(root: Path, *, shared: bool) -> dict[str, str]:
    """Return the variables that a trial needs: for the tracking server, the user and git."""
    given = os.environ.get("MLFLOW_TRACKING_URI", "")
    if shared and not given.startswith(_SHARED):
        must = "must name a server or database that every node reaches"
        raise ToolError(f"MLFLOW_TRACKING_URI: {must}; received '{given}'")
    passed = {k: v for k, v in os.environ.items() if k.startswith(_PASSED_ON)}
    passed["MLFLOW_TRACKING_URI"] = address(root)  # the driver's own store, not one in each clone
    passed["LOGNAME"] = getpass.getuser()  # the row's user
    name, email = text("var", "GIT_COMMITTER_IDENT").rpartition(">")[0].split(" <")
    for role in ("AUTHOR", "COMMITTER"):
        passed |= {f"GIT_{role}_NAME": name, f"GIT_{role}_EMAIL": email}
    return passed


class Experiments:
    """A commit's experiments in the git remote."""

    def __init__(self, project: Project, commit: str) -> None:
        self._project, self._commit = project, commit
        self._known: dict[str, Result] = {}  # by commit
        self.commits: dict[str, str] = {}
        self.trees: dict[str, str] = {}
        """Git's objects by the names of the experiments."""

    def read(self) -> dict[str, Result]:
        """Return the results of those that are there now, by name."""
        here = f"refs/sweeps/{self._commit}/"  # apart from the user's own experiments
        git("fetch", "-q", "--prune", "origin", f"+{_refs(self._commit)}*:{here}*")
        lines = text("for-each-ref", "--format=%(refname) %(objectname) %(tree)", here).splitlines()
        found = [line.removeprefix(here).split() for line in lines]
        self.commits = {name: commit for name, commit, _ in found}
        self.trees = {name: tree for name, _, tree in found}
        for commit in {*self.commits.values()} - self._known.keys():
            with self._project.at(commit):
                self._known[commit] = read(self._project)
        return {name: self._known[commit] for name, commit in self.commits.items()}


def _refs(commit: str) -> str:
    """Return the git namespace in which DVC keeps a commit's experiments."""
    return f"refs/exps/{commit[:2]}/{commit[2:]}/"


def text(*arguments: str) -> str:
    """Run git in the working directory and return what it prints; raises `ProjectError`."""
    return os.fsdecode(git(*arguments)).rstrip()
