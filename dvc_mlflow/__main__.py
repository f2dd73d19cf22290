"""`dvc-mlflow COMMAND`: parse the command line, and report errors in one place."""

import os
import sys
from collections.abc import Sequence

from .errors import ToolError, warn


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command named on the command line, or in `arguments`; return its exit status."""
    words = sys.argv[1:] if arguments is None else [*arguments]
    try:
        os.getcwd()  # noqa: PTH109  (pathlib imports a dozen modules)
    except FileNotFoundError:
        if words[:1] != ["run"]:  # its command may not need one
            warn("the working directory does not exist any more; go to another one")
            return 1
    try:
        if words[:1] == ["run"] and (command := _command(words[1:])):
            from .commands.run import run  # without argparse, to start the command sooner

            return run(command)
        return _run_parsed(words)
    except (ToolError, OSError) as error:  # of the system, such as a full disk
        where = getattr(error, "filename", None)
        warn(f"{where}: {getattr(error, 'strerror', error)}" if where else f"{error}")
        return 1
    except KeyboardInterrupt:
        return 130


def _run_parsed(words: Sequence[str]) -> int:
    """Run a command whose words argparse reads."""
    import gc
    from importlib import import_module

    from .arguments import parser
    from .pipeline.run_context import leave_run

    leave_run(os.environ)
    parsing = parser()
    arguments = parsing.parse_args(words)
    if arguments.command == "run":
        parsing.error("run: the command is missing")
    gc.set_threshold(200_000)  # imports make half a million objects, which stay
    import_module(".store", __package__)  # its settings, before any command imports MLflow
    # Import only what this command needs: DVC and MLflow take seconds.
    command = import_module(f".commands.{arguments.command}", __package__)
    try:
        return int(command.run(arguments))
    finally:
        gc.freeze()  # Python's end would look at all of them once more


def _command(words: Sequence[str]) -> list[str]:
    """Return the command that `run` is to become, or [] if the words ask for help or are wrong."""
    if words[:1] == ["-c"] and len(words) == 2:
        return [os.environ.get("SHELL") or "/bin/sh", "-c", words[1]]  # as DVC starts it
    command = [*words[1:]] if words[:1] == ["--"] else [*words]
    return [] if command[0:1] and command[0].startswith("-") else command


if __name__ == "__main__":
    sys.exit(main())
