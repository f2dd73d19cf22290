"""The command line of `dvc-mlflow sweep`."""

from typing import Any


def add_sweep_to(commands: Any) -> None:
    """Add the command to an argument parser's commands."""
    add = commands.add_parser(
        "sweep",
        help="run many DVC experiments, here or on a Ray cluster",
        description="Run a sweep of DVC experiments, as `dvc exp run` would, on the cores of this "
        "machine or on a Ray cluster. Experiments that the git remote has do not run again.",
    ).add_argument
    add("-S", "--set-param", action="append", default=[], help="as in `dvc exp run --queue`")
    add("--optuna", action="append", default=[], help="KEY=log(A,B), interval(A,B) or A,B,...")
    add("--trials", type=int, default=40, help="number of --optuna trials (default: 40)")
    add("--seed", type=int, default=0, help="of the --optuna search (default: 0)")
    add("--name", help="the sweep's name in MLflow (default: a hash of its settings)")
    add("--address", help="of a running Ray cluster, or auto (default: start one here)")
    add("--cpus", type=float, default=1, help="cores per trial (default: 1)")
    add("--gpus", type=float, default=0, help="graphics cards per trial, or a part (default: 0)")
    add("--timeout", type=float, default=86400, help="seconds per trial (default: 86400, a day)")
    add("--metric", help="KEY, or -KEY if lowest is best (default: the first in the table)")
    add("--clones", default="/tmp", help="each node's folder, e.g. '$SCRATCH' (default: /tmp)")  # noqa: S108
    add(
        "--pins",
        default="",
        help="file that pins packages, or none (default: requirements.txt or a lock)",
    )
