"""The command line of `dvc-mlflow`."""

import argparse
from collections.abc import Callable
from contextlib import suppress
from typing import Any


def parser() -> argparse.ArgumentParser:
    """Return the parser of all commands; `command` is the name of the one that was typed."""
    every = argparse.ArgumentParser(
        prog="dvc-mlflow", description="Record any DVC pipeline in MLflow."
    )
    commands = every.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_ui(commands)
    _add_record(commands)
    _add_those_of_one_row(commands)
    _add_run(commands)
    _add_follow(commands)
    _add_sweep(commands)
    return every


def _add_record(commands: Any) -> None:
    record = commands.add_parser(
        "record",
        help="add the rows that MLflow lacks, from git and DVC alone",
        description="Add a row to MLflow for each result in dvc.lock that has none. This runs "
        "nothing and overwrites nothing, so it is safe at any time. The pipeline needs no change.",
    )
    which = record.add_mutually_exclusive_group()
    which.add_argument(
        "--rev",
        default="",
        help="a commit, branch, tag or DVC experiment, or a range such as v1..main",
    )
    which.add_argument(
        "--all",
        action="store_true",
        help="every result in the history of all branches, tags, experiments and rows in git",
    )
    record.add_argument(
        "--fetch", action="store_true", help="fetch missing files from DVC's remote"
    )
    record.add_argument("--dry-run", action="store_true", help="only say what would be done")


def _add_run(commands: Any) -> None:
    run = commands.add_parser(
        "run",
        usage="dvc-mlflow run COMMAND [ARGUMENT ...]\n       dvc-mlflow run -c 'SHELL TEXT'",
        help="run a command, such as `dvc repro`, and record whatever dvc runs meanwhile",
        description="Start `follow` if none is at work, tell scripts where their MLflow runs go, "
        "and become the command: `dvc-mlflow run dvc repro`. In dvc.yaml, it can stand before the "
        "command of a stage. What it has started ends by itself.",
    )
    run.add_argument("-c", metavar="TEXT", help="a command line for the shell")


def _add_those_of_one_row(commands: Any) -> None:
    restore = commands.add_parser(
        "restore",
        help="restore a row's code, params and files in a new folder",
        description="Make the folder restored/<name of the row> with the code, params and files of "
        "a row, checked by md5. Your checkout stays as it is, and no row is added. No stage, hook "
        "or program of the row's commit runs; git's filters and DVC's remotes are those of your "
        "checkout and your own settings.",
    )
    forget = commands.add_parser(
        "forget",
        help="delete a row, and what git keeps for it alone",
        description="Move a row to MLflow's trash, and delete the git ref that keeps its code, "
        "unless another row needs the ref. Use it, for example, if an untracked file in that code "
        "holds a secret.",
    )
    promote = commands.add_parser(
        "promote",
        help="make a row's model the champion, if it is better on the same data",
        description="If a row is better than the champion on the same data, register its model in "
        "git's tags by GTO, at the commit that has the row's result, and assign it the stage "
        "`champion`. MLflow shows it as an alias. In dvc.yaml, the stage that measures says what "
        "is better: `meta: {mlflow: {promote: [test/score, -test/loss]}}` compares these metrics "
        "in turn; with a `-`, lower is better. Then `mlflow models serve -m models:/NAME@champion` "
        "serves it, NAME being its key in `artifacts`.",
    )
    for command in (restore, forget, promote):
        command.add_argument(
            "run",
            metavar="ROW",
            help="a row of the table: its name, four or more digits, DVC experiment or run id",
        )
    promote.add_argument(
        "--stage", metavar="NAME", default="champion", help="another stage (default: champion)"
    )
    promote.add_argument("--dry-run", action="store_true", help="only say what would be done")


def _add_ui(commands: Any) -> None:
    ui = commands.add_parser(
        "ui",
        help="show the rows in MLflow, and record whatever dvc runs here",
        description="Add the results that git has, serve the table on this machine only, print its "
        "address, and watch the repository until Ctrl-C: whatever dvc runs in it, whoever starts "
        "it, has its row while it runs. If MLFLOW_TRACKING_URI is a server, nothing is served. If "
        "another `ui` serves the rows already, only the address is printed.",
    )
    ui.add_argument(
        "--port",
        type=_number(int, 1, 65535),
        default=5000,
        help="the port on 127.0.0.1 (default: 5000)",
    )


def _add_follow(commands: Any) -> None:
    follow = commands.add_parser(
        "follow",
        help="record whatever dvc runs here, without a page",
        description="Do what `ui` does, without a page: add the results that git has, and then "
        "those of whatever dvc runs in this repository, until Ctrl-C.",
    )
    follow.add_argument(
        "--until-idle",
        action="store_true",
        help="record only what begins from now on, and end when nothing has run for ten seconds",
    )


def _add_sweep(commands: Any) -> None:
    add = commands.add_parser(
        "sweep",
        help="run many DVC experiments by Ray (dvc-mlflow[sweep])",
        description="Run a grid of DVC experiments, as `dvc exp run` would, or let Optuna search "
        "one, on the cores of this machine or on a Ray cluster. Experiments that the git remote "
        "has do not run again.",
    ).add_argument
    add("-S", "--set-param", action="append", default=[], help="as in `dvc exp run --queue`")
    add(
        "-n",
        type=_number(int, 1),
        help="search so many points of -S, also in interval(A,B) and log(A,B)",
    )
    add("--metric", help="KEY that says which trial is best, or -KEY if lowest is best")
    add("--name", help="begins the sweep's name in MLflow (default: grid or search)")
    add("--address", help="of a running Ray cluster, or auto (default: start one here)")
    add("--cpus", type=_number(float, 0.01), default=1, help="cores per trial (default: 1)")
    add(
        "--gpus",
        type=_number(float, 0),
        default=0,
        help="graphics cards per trial, or a part (default: 0)",
    )
    timeout, seconds = "seconds per trial (default: 86400, a day)", _number(float, 1, 2e6)
    add("--timeout", type=seconds, default=86400, help=timeout)
    add("--clones", default="/tmp", help="each node's folder, e.g. '$SCRATCH' (default: /tmp)")  # noqa: S108


def _number(kind: type[int | float], least: float, most: float = 1e9) -> Callable[[str], float]:
    def number(text: str) -> float:
        with suppress(ValueError):
            if least <= (value := kind(text)) <= most:
                return value
        raise argparse.ArgumentTypeError(f"must be from {least:g} to {most:g}; received {text!r}")

    return number
