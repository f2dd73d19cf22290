"""`dvc-mlflow sweep`: run a sweep of DVC experiments on Ray, and record it in MLflow."""

import argparse
import os

from ..errors import ToolError, masked, warn
from ..project.project import Project
from ..sweep.driver import sweep
from .follow import stopped


def run(arguments: argparse.Namespace) -> int:
    """Run the trials that the remotes lack; return 1 if a trial failed or has no row."""
    if arguments.n and not arguments.metric:
        raise ToolError("-n: a search needs --metric, such as --metric=-evaluate/loss")
    stopped(seconds=5.0, status=130)
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
