"""What a sweep starts from: a commit that nodes can clone, and remotes that they can push to."""

import argparse
import os
import re
import tomllib
from collections import defaultdict
from importlib.metadata import distributions, version
from pathlib import Path
from typing import Any

from ..errors import ProjectError, ToolError
from ..git import checkout, git, glob, text
from ..place import address, default_experiment, folder_of, main_repository
from ..project import Project
from ..project.elsewhere import lacking
from ..project.experiments import remote
from ..rows.origin import user
from .node import ANSWERING
from .search import digest

_SHARED = ("http://", "https://", "postgresql", "mysql", "mssql")
_PASSED_ON = ("MLFLOW_TRACKING_", "MLFLOW_S3_", "MLFLOW_HTTP_", "MLFLOW_EXPERIMENT_NAME", "AWS_")
_PIN = re.compile(r"^(?: *- )?([\w.-]+)(?:\[[\w,.-]*\])?==([\w.!+]+)[ \\]*$", re.M)
_PINNING = ("requirements.txt", "uv.lock", "poetry.lock")
_OWN = ("mlflow.db*", "mlartifacts", "restored")  # the tool's files, which git may not ignore


def order(project: Project, commit: str, given: argparse.Namespace) -> dict[str, Any]:
    """Return what all trials need; raises `ToolError` if a node could not clone what is here."""
    root = main_repository()
    folder = folder_of(root, checkout(root))
    own = [glob(folder, name).replace("(", "(exclude,", 1) for name in _OWN]
    if changed := text("status", "--porcelain", "--", ":/", *own).splitlines():
        raise ProjectError(f"{changed[0][3:]}: not committed, so no node would have it")
    url = text("remote", "get-url", "origin")
    git("fetch", "-q", "origin", seconds=ANSWERING)
    if not text("branch", "-r", "--contains", commit, "--list", "origin/*"):
        raise ProjectError(f"{commit[:7]} is not in the git remote 'origin': `git push` it first")
    if not (config := remote(project)):
        raise ProjectError("no DVC remote: `dvc remote add -d NAME URL` first")
    if line := next(lacking(project), ""):
        raise ProjectError(line)
    return {
        "commit": commit,
        "folder": project.folder,
        "pins": [*_pins(project.root, given.pins), ("dvc-mlflow", version("dvc-mlflow"))],
        "repository": default_experiment(root).replace("/", "-"),
        "url": f"{Path(url).resolve()}" if Path(url).exists() else url,
        "dvc": config,
        "environment": _environment(root, shared=bool(given.address)),
        "timeout": given.timeout,
        "clones": f"{given.clones}/dvc-sweep-{digest(url)}",
    }


def _pins(root: Path, given: str) -> list[tuple[str, str]]:
    """Return the packages that nodes must have, and their versions; raises `ToolError`.

    In a list such as requirements.txt, lines without a marker count. A lock also covers other
    platforms, Pythons and extras, so only packages that are installed here count. If it has several
    versions of a package, the installed one counts. If the name is `none`, there are none.
    """
    if given == "none":
        return []
    names = [given] if given else _PINNING
    places = [folder / name for name in names for folder in (root, checkout(root))]
    file = next((place for place in places if place.is_file()), None)
    if not file:
        if given:
            raise ToolError(f"--pins: there is no such file; received '{given}'")
        return []
    if file.suffix != ".lock":
        return _PIN.findall(file.read_text())
    locked = defaultdict(list)
    try:
        for package in tomllib.loads(file.read_text())["package"]:
            if not {"editable", "virtual"} & package.get("source", {}).keys():  # the project itself
                locked[_canonical(package["name"])].append(package["version"])
    except (ValueError, LookupError, TypeError, AttributeError):
        raise ToolError(f"--pins: must be a lock of uv or Poetry; received '{file}'") from None
    here = {_canonical(one.name): one.version for one in distributions() if one.name}
    return [(k, here[k] if here[k] in v else v[0]) for k, v in locked.items() if k in here]


def _canonical(name: str) -> str:
    """Return the normal form of a package's name: `-`, `_` and `.` are the same in it."""
    return re.sub(r"[-_.]+", "-", name).lower()


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
    passed["LOGNAME"] = user()  # the row's
    name, email = text("var", "GIT_COMMITTER_IDENT").rpartition(">")[0].split(" <")
    for role in ("AUTHOR", "COMMITTER"):
        passed |= {f"GIT_{role}_NAME": name, f"GIT_{role}_EMAIL": email}
    return passed
