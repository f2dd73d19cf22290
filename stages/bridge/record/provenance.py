"""Where a result came from: repository, code, folder, user and environment."""

import getpass
import os
import sys
from pathlib import Path

from mlflow.utils import mlflow_tags

from dvc_mlflow import processes, repository
from dvc_mlflow.repository import ask, checkout

from ..run.errors import StageError
from ..run.files import md5
from ..run.params import PARAMS, flatten, parse
from .errors import stage_errors

COMMIT = mlflow_tags.MLFLOW_GIT_COMMIT
DIRTY = "mlflow.source.git.dirty"  # MLflow 3.0 has no constant for it
EXPERIMENT_NAME = "dvc.exp_name"
STAGE = "dvc.stage"
SWEEP = "sweep"
FOLDER = "folder"
PARAMS_FILE = "params_file"

git = stage_errors()(repository.git)


def folder() -> Path:
    """Return the folder whose params.yaml is used, such as `.` or properties/claims/one."""
    return Path.cwd().relative_to(checkout())


def tags(root: Path, params: Path) -> dict[str, str]:
    """Return the tags of a run: MLflow's own for user, source and commit, and where it was made.

    `MlflowClient.create_run` sets none of them. A tree is dirty if anything differs from the commit
    except what a run has its own copy of (params and results) and DVC's .gitignore files.
    """
    commit = ask("rev-parse", "HEAD")
    changed = ask("status", "--porcelain", "--", ":/", *recorded(params)).splitlines()
    # `AD` is neither in the commit nor on disk: in a DVC project below git's root, `dvc exp run`
    # adds the stages' deps to git's index under paths that do not exist.
    dirty = any(not line.startswith("AD ") for line in changed)
    found = {
        mlflow_tags.MLFLOW_USER: getpass.getuser(),
        mlflow_tags.MLFLOW_SOURCE_NAME: sys.argv[0],
        mlflow_tags.MLFLOW_SOURCE_TYPE: "LOCAL",
        COMMIT: commit,
        DIRTY: str(dirty).lower() if commit else "",
        EXPERIMENT_NAME: os.environ.get("DVC_EXP_NAME", ""),
        STAGE: os.environ.get("DVC_STAGE", ""),
        SWEEP: os.environ.get("SWEEP", ""),
        FOLDER: "/".join(folder().parts),
        **processes.tags(root),
        PARAMS_FILE: str(params) if params != PARAMS else "",
        **environment(),
    }
    return {key: value for key, value in found.items() if value}


def environment() -> dict[str, str]:
    """Return the tags of what runs the code, with the md5 of requirements.txt if there is one."""
    requirements = checkout() / "requirements.txt"
    return repository.environment(md5(requirements) if requirements.is_file() else "")


def recorded(params: Path) -> list[str]:
    """Return pathspecs that exclude what a run has its own copy of: its params and results."""
    names = ("data/**", "dvc.lock", ".gitignore", params.name, *_outs())
    return [f":(exclude,top,glob)**/{name}" for name in names]


def title(params: dict[str, object], file: Path) -> str:
    """Return the folder's name and what differs from the committed params, or `baseline`.

    `params` are by dotted key. A stage of a `foreach` or a `matrix` adds its item's key.
    """
    key = os.environ.get("DVC_STAGE", "").partition("@")[2]
    names = [name for name in dict.fromkeys([folder().name, key]) if name]
    try:
        before = flatten(parse(ask("show", f"HEAD:./{file}")))
    except StageError:
        return " ".join(names) or "not committed"
    shorts = [key.split(".")[-1] for key in before]
    for key, value in params.items():
        if value != before.get(key, value):
            short = key.split(".")[-1]
            names.append(f"{short if shorts.count(short) == 1 else key}={value}")
    return " ".join(names)[:60] or "baseline"


def _outs() -> list[str]:
    """Return the outputs in the DVC project's lock file, with a pattern for the files in each."""
    here = Path.cwd()
    locks = [path / "dvc.lock" for path in (here, *here.parents) if path.is_relative_to(checkout())]
    try:
        text = next((lock.read_text() for lock in locks if lock.exists()), "{}")
        stages = parse(text).get("stages", {}).values()
        outs = [str(out["path"]) for stage in stages for out in stage.get("outs", [])]
    except (StageError, OSError, AttributeError, KeyError, TypeError):  # DVC itself reports it
        return []
    inside = [out for out in outs if not {"..", "/"} & {*Path(out).parts}]
    return [name for out in inside for name in (out, f"{out}/**")]
