"""`dvc-mlflow sweep`: run a sweep of DVC experiments on Ray, and record it in MLflow."""

import argparse
import os
import threading

from ..errors import ToolError, masked, warn
from ..project.project import Project
from ..sweep.driver import sweep
from .follow import on_signals

_SECONDS = 5.0  # from Ctrl-C to the end, whatever hangs


def run(arguments: argparse.Namespace) -> int:
    """Run the trials that the remotes lack; return 1 if a trial failed or has no row."""
    if arguments.n and not arguments.metric:
        raise ToolError("-n: a search needs --metric, such as --metric=-evaluate/loss")
    on_signals(_interrupted)
    try:
        with Project() as project:
            os.chdir(project.root)
            return int(not sweep(project, arguments))
    except ToolError as error:
        raise ToolError(masked(f"{error}")) from None
    except ModuleNotFoundError as error:
        if error.name not in {"ray", "optuna"}:
            raise
        raise ToolError(f"{error.name} is missing: pip install 'dvc-mlflow[sweep]'") from None
    except KeyboardInterrupt:
        warn("stopped; the same command continues where this one ended")
        return 130


def _interrupted(*_: object) -> None:
    """Interrupt the sweep once, and end it soon if something hangs meanwhile."""
    on_signals(lambda *_: None)
    timer = threading.Timer(_SECONDS, os._exit, [130])
    timer.daemon = True
    timer.start()
    raise KeyboardInterrupt
