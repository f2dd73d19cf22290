"""Errors that are not bugs: each ends a command with exit status 1 and a one-line message.

ToolError
├── ProjectError          DVC cannot read the pipeline, or git the repository
└── StoreError            the MLflow store cannot be used
"""

import sys
from contextlib import suppress


class ToolError(Exception):
    """A user's mistake, or a failure outside the program; the message is for the user."""


class ProjectError(ToolError):
    """DVC or git cannot read this repository."""


class StoreError(ToolError):
    """The MLflow store at `address` cannot be used."""

    def __init__(self, address: str, problem: str, cure: str) -> None:
        self.address, self.problem, self.cure = address, problem, cure
        super().__init__(f"MLflow at {address}: {problem}; {cure}")


def is_raised_in(package: str, error: BaseException) -> bool:
    """Whether an error comes from a package, rather than from the tool's use of it."""
    import traceback  # slow for `run`

    frames = traceback.walk_tb(error.__traceback__)
    return any(frame.f_globals.get("__name__", "").startswith(f"{package}.") for frame, _ in frames)


def warn(text: str) -> None:
    """Print a line to stderr; if that is closed, do nothing, as a stage must not fail for it."""
    with suppress(OSError):
        print(f"dvc-mlflow: {plain(text)}", file=sys.stderr, flush=True)


def say(text: str) -> None:
    """Print a line of a command's result."""
    print(plain(text))


def plain(text: str) -> str:
    """Return a text with `?` for control characters: a name in a store can have any."""
    return "".join(character if character.isprintable() else "?" for character in text)
