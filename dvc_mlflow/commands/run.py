"""`dvc-mlflow run COMMAND…`: make sure that the repository is followed, and become the command."""

import os
import signal
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from .. import place, processes, work_tree
from ..errors import ProjectError, warn
from ..follow.follower_lock import start
from ..git import checkout
from ..pipeline.run_context import CONTEXT, EXPERIMENT, Token, note_for_stages, with_token
from ..pipeline.tags import SWEEP_VARIABLE


def run(command: Sequence[str]) -> int:
    """Become a command whose MLflow calls go where its row is.

    Return, as a shell does, 127 if there is no such command, and 126 if it cannot be started. In a
    stage, the kernel ends the command with its `dvc` (Linux).
    """
    # As this process was given it: in the locale `C`, Python adds to it.
    env = processes.environ(os.getpid()) or dict(os.environ)
    dvc = _dvc_of_stage(env) if "DVC_STAGE" in env else 0
    if not env.get(SWEEP_VARIABLE):  # what a trial makes is recorded by its driver
        try:
            env |= _followed(env, dvc)
        except ProjectError as error:
            warn(f"{error}")
        except Exception as error:  # whatever it is, the command runs
            warn(f"{error or type(error).__name__}; `dvc-mlflow record` adds its rows later")
    if "DVC_STAGE" in env and dvc == os.getppid():
        processes.end_with_parent(signal.SIGTERM)
    for number in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores them
        signal.signal(number, signal.SIG_DFL)
    try:
        os.execvpe(command[0], [*command], env)  # noqa: S606  (the user's own command)
    except OSError as error:
        warn(f"{command[0]}: {error.strerror}")
        return 127 if isinstance(error, FileNotFoundError) else 126


def _followed(env: Mapping[str, str], dvc: int) -> dict[str, str]:
    """Let a follower be there, and return the variables with which a script's runs reach its row.

    `dvc` is that of the stage, if this is one. MLflow reads the variables itself. Raises
    `ToolError` and `OSError`.
    """
    if (project := place.project_root()) is None:
        raise ProjectError("no DVC project is here, so nothing is recorded")
    root = place.main_repository()
    stage = env.get("DVC_STAGE", "")
    process = dvc if stage else os.getpid()
    chosen = {"MLFLOW_EXPERIMENT_ID", EXPERIMENT} & env.keys()
    token = Token(processes.process(process), stage, sets_experiment=not chosen)
    variables = {"MLFLOW_TRACKING_URI": place.address(root), CONTEXT: with_token(env, token)}
    named = "" if chosen else _experiment(stage, dvc, project)
    if not chosen:
        folder = place.project_folder()
        variables[EXPERIMENT] = named or place.default_experiment(root, folder)
        if not place.has_experiment(root, variables[EXPERIMENT]):
            from ..store.store import Store  # seconds, once; else a script's MLflow makes it

            Store.open(root, named, folder=folder)
    start(root)
    # A dvc.yaml that names no experiment names none for its other stages.
    text = "" if named or ":" in stage else note_for_stages(env, variables, token)
    if text:
        with suppress(OSError):
            made = place.own_folder(root) / f"run.{os.getpid()}"
            made.write_bytes(os.fsencode(text))
            made.replace(made.with_name("run"))  # another `dvc` may be reading it
    return variables


def _experiment(stage: str, dvc: int, project: Path) -> str:
    """Return the experiment that dvc.yaml names for a stage, or ""; only its text is read.

    If it names none for the stage, the row can be that of another one: then it is the first that is
    named.
    """
    address, _, name = stage.rpartition(":")
    with suppress(Exception):  # whatever is wrong with the file, DVC says it
        # An experiment's `dvc` works in a temporary copy.
        home = Path(f"/proc/{dvc}/cwd").readlink() if stage else project
        text = work_tree.read(home / (address or "dvc.yaml"), checkout(home)).decode()
        if "experiment" in text:
            import yaml  # slow for what DVC starts for each command

            stages = yaml.load(text, yaml.CSafeLoader)["stages"]
            metas = {key: each.get("do", each).get("meta") or {} for key, each in stages.items()}
            named = {k: (meta.get("mlflow") or {}).get("experiment") for k, meta in metas.items()}
            return str(named.get(name.partition("@")[0]) or next(filter(None, named.values()), ""))
    return ""


def _dvc_of_stage(env: Mapping[str, str]) -> int:
    """Return the `dvc` of this stage: the nearest ancestor that is not itself part of the stage."""
    own = {name: env[name] for name in ("DVC_STAGE", "DVC_ROOT") if name in env}
    pid = os.getppid()
    while own.items() <= processes.environ(pid).items():
        pid = processes.parent(pid)
    return pid
