"""What a sweep starts from: a commit that nodes can clone, and remotes that they can push to."""

import getpass
import json
import os
import re
from argparse import Namespace
from pathlib import Path
from typing import Any, NamedTuple

from bridge.record import provenance
from bridge.record.files import dvc_config
from bridge.record.store import address
from bridge.run.errors import StageError
from bridge.run.params import PARAMS, parse
from dvc_mlflow.repository import main_repository
from sweeps import node
from sweeps.search import digest

_SHARED = ("http://", "https://", "postgresql", "mysql", "mssql")
_PASSED_ON = ("MLFLOW_TRACKING_", "MLFLOW_S3_", "MLFLOW_HTTP_", "AWS_")


class Experiment(NamedTuple):
    """What a DVC experiment has come to: the contents of `node.FILES`."""

    metrics: dict[str, Any]
    stages: dict[str, Any]


Experiments = dict[str, Experiment]


def order(commit: str, sweep: str, options: Namespace) -> dict[str, Any]:
    """Return what all trials need; raises `StageError` if a node's clone cannot be what is here."""
    if changed := git("status", "--porcelain").splitlines():
        raise StageError(f"{changed[0][3:]}: not committed, so no node would have it")
    url = git("remote", "get-url", "origin")
    git("fetch", "-q", "origin")
    if not git("branch", "-r", "--contains", commit, "--list", "origin/*"):
        raise StageError(f"{commit[:7]} is not in the git remote 'origin': `git push` it first")
    known = dvc_config(Path.cwd())
    if not (name := known["core"].get("remote")):
        raise StageError("no DVC remote: `dvc remote add -d NAME URL` first")
    config = {"core": {"remote": name}, "remote": {name: known["remote"][name]}}
    return {
        "commit": commit,
        "refs": _refs(commit),
        "url": f"{Path(url).resolve()}" if Path(url).exists() else url,
        "dvc": json.loads(json.dumps(config, default=str)),  # a path as text
        "environment": {**_environment(shared=bool(options.address)), "SWEEP": sweep},
        "timeout": options.timeout,
        "clones": f"{options.clones}/dvc-sweep-{digest(url)}",
    }


def experiments(commit: str) -> Experiments:
    """Return a commit's experiments in the git remote, by name."""
    here = f"refs/sweeps/{commit}/"  # apart from the user's own experiments
    git("fetch", "-q", "--prune", "origin", f"+{_refs(commit)}*:{here}*")
    refs = git("for-each-ref", "--format=%(refname)", here).split()
    wanted = "".join(f"{ref}:{file}\n" for ref in refs for file in node.FILES)
    # In the answer, a line with name, type and size comes before each file.
    before = re.compile(r"^(?:\w{40,64} blob \d+|refs/\S+ missing)$", re.M)
    texts = map(str.strip, before.split(git("cat-file", "--batch", text=wanted))[1:])
    files = zip(refs, *[iter(texts)] * len(node.FILES), strict=True)
    return {ref.removeprefix(here): read(*both) for ref, *both in files if all(both)}


def read(metrics: str, lock: str) -> Experiment:
    """Return an experiment from the text of its files; a NaN or infinite metric is None."""
    return Experiment(json.loads(metrics, parse_constant=lambda _: None), parse(lock)["stages"])


def _refs(commit: str) -> str:
    """Return the git namespace in which DVC keeps a commit's experiments."""
    return f"refs/exps/{commit[:2]}/{commit[2:]}/"


def donors(params: dict[str, Any], there: Experiments) -> dict[str, str]:
    """Return, by stage, an experiment with the same params for it and all stages before it.

    If code or data differ anyway, DVC runs the stage.
    """
    found: dict[str, str] = {}
    for name, (_, stages) in there.items():
        made = {out["path"]: stage for stage, entry in stages.items() for out in entry["outs"]}
        own = {stage: entry["params"][f"{PARAMS}"].items() for stage, entry in stages.items()}
        same = {stage for stage in stages if own[stage] <= params.items()}
        for _ in stages:  # until those are left that come after such stages only
            deps = {stage: [dep["path"] for dep in stages[stage]["deps"]] for stage in same}
            same = {x for x in same if all(made.get(path, x) in same for path in deps[x])}
        found |= dict.fromkeys(same, name)
    return found


def _environment(shared: bool) -> dict[str, str]:
    """Return the variables that a trial needs: for the tracking server, the user and git."""
    given = os.environ.get("MLFLOW_TRACKING_URI", "")
    if shared and not given.startswith(_SHARED):
        must = "must name a server or database that every node reaches"
        raise StageError(f"MLFLOW_TRACKING_URI: {must}; received '{given}'")
    passed = {k: v for k, v in os.environ.items() if k.startswith(_PASSED_ON)}
    # The driver's own store, not one in each clone.
    passed["MLFLOW_TRACKING_URI"] = address(main_repository())
    passed["LOGNAME"] = getpass.getuser()  # the row's user
    name, email = git("var", "GIT_COMMITTER_IDENT").rpartition(">")[0].split(" <")
    for role in ("AUTHOR", "COMMITTER"):
        passed |= {f"GIT_{role}_NAME": name, f"GIT_{role}_EMAIL": email}
    return passed


def git(*arguments: str, text: str = "") -> str:
    """Run git in the working directory and return what it prints; raises `StageError`."""
    return provenance.git(*arguments, text=text.encode()).decode().rstrip()
