"""`dvc-mlflow sweep`: run a sweep of DVC experiments on Ray, and record it in MLflow."""

import argparse
import os

from ..errors import ToolError, masked, warn
from ..git import check_git
from ..project.project import Project
from ..sweep.driver import STOPPED, ended_by_signals, sweep


def run(given: argparse.Namespace) -> int:
    """Run the trials that the git remote lacks; return 1 if a trial failed or has no row."""
    if given.n and not given.metric:
        raise ToolError("-n: a search needs --metric, such as --metric=-evaluate/loss")
    check_git()
    try:
        with ended_by_signals(), Project() as project:
            os.chdir(project.root)
            return int(not sweep(project, given))
    except ToolError as error:
        raise ToolError(masked(f"{error}")) from None
    except ModuleNotFoundError as error:
        if error.name not in {"ray", "optuna"}:
            raise
        raise ToolError(f"{error.name} is missing: pip install 'dvc-mlflow[sweep]'") from None
    except KeyboardInterrupt:
        warn(STOPPED)
        return 130
