"""`dvc-mlflow COMMAND`: parse the command line, and report errors in one place."""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from .errors import ToolError, warn
from .safe_path import leave_out_checkout

if TYPE_CHECKING:
    import argparse


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command that the command line, or `arguments`, names; return its exit status."""
    try:
        leave_out_checkout()
    except FileNotFoundError:
        warn("the working directory does not exist any more; go to another one")
        return 1
    words = sys.argv[1:] if arguments is None else [*arguments]
    if words[:1] == ["run"] and (stage := _stage_command(words[1:])):
        from .commands.run import run  # without argparse: a stage's command waits for it

        return run(stage)
    from importlib import import_module

    given = _parser().parse_args(words)
    try:
        # Only the command's own imports: those of DVC and MLflow take seconds.
        command = import_module(f".commands.{given.command}", __package__)
        return int(command.run(given))
    except ToolError as error:
        warn(f"{error}")
        return 1
    except KeyboardInterrupt:
        return 130


def _stage_command(words: Sequence[str]) -> list[str]:
    """Return the command that `run` is to start, or nothing if the words are none."""
    if words[:1] == ["-c"] and len(words) == 2:
        return ["/bin/sh", "-c", words[1]]
    command = [*words[1:]] if words[:1] == ["--"] else [*words]
    return [] if command[0:1] and command[0].startswith("-") else command


def _parser() -> "argparse.ArgumentParser":
    import argparse

    parser = argparse.ArgumentParser(
        prog="dvc-mlflow", description="Record any DVC pipeline in MLflow."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    record = commands.add_parser(
        "record",
        help="make the rows that MLflow lacks, from git and DVC alone",
        description="Make a row in MLflow for each result in dvc.lock that has none. Nothing runs "
        "and nothing that is there changes, so it is safe at any time. The pipeline needs no "
        "change.",
    )
    record.add_argument("--rev", default="", help="a commit, branch, tag or experiment of DVC's")
    record.add_argument(
        "--stages",
        default="",
        help="the stages that have rows, such as train,evaluate; by default those whose command "
        "begins with `dvc-mlflow run`, or else those with metrics, curves or a model",
    )
    record.add_argument("--deleted", action="store_true", help="bring deleted rows back, too")
    record.add_argument("--dry-run", action="store_true", help="only say what would be done")
    run = commands.add_parser(
        "run",
        usage="dvc-mlflow run COMMAND [ARGUMENT ...]\n       dvc-mlflow run -c 'SHELL TEXT'",
        help="run a stage's command, recorded while it runs: for dvc.yaml",
        description="Put this before a stage's command in dvc.yaml. The command runs as before, "
        "with the same streams, signals and exit status, and its row in MLflow shows it live.",
    )
    run.add_argument("-c", metavar="TEXT", help="a shell's command line")
    restore = commands.add_parser(
        "restore",
        help="bring a row's code, params and files back, in a folder of their own",
        description="Make the folder restored/<name of the row> with the code, params and files of "
        "a row, checked by md5. Nothing runs, no row is added, and nothing else is touched.",
    )
    forget = commands.add_parser(
        "forget",
        help="delete a row, and what git keeps for it alone",
        description="Move a row to MLflow's trash, and delete the git ref that keeps its code, "
        "which may be an untracked file with a secret in it, unless another row needs the ref.",
    )
    for command in (restore, forget):
        command.add_argument("run", metavar="RUN", help="the run id on its page in MLflow")
    return parser


if __name__ == "__main__":
    sys.exit(main())
