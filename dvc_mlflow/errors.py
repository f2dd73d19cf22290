"""Errors that are not bugs: each ends a command with exit status 1 and a one-line message.

ToolError
├── ProjectError          DVC cannot read the pipeline, or git the repository
├── StoreError            the MLflow store cannot be used
└── ModelError            MLflow cannot serve a model
"""

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress


class ToolError(Exception):
    """A user's mistake, or a failure outside the program; the message is for the user."""


class ProjectError(ToolError):
    """DVC or git cannot read this repository."""


class ModelError(ToolError):
    """MLflow cannot serve a model; the message says why."""


class StoreError(ToolError):
    """The MLflow store at `address` cannot be used."""

    def __init__(self, address: str, problem: str, cure: str) -> None:
        super().__init__(f"MLflow at {address}: {problem}; {cure}")


@contextmanager
def one_line(what: str) -> Iterator[None]:
    """Turn whatever a library raises over `what`, a file or a commit, into a `ProjectError`.

    Anybody can have written the file: `MemoryError` and `NotImplementedError` are among it.
    """
    try:
        yield
    except ToolError:
        raise
    except Exception as error:
        if isinstance(error, RecursionError):
            raise ProjectError(f"{what}: it is nested too deeply") from None
        said = " ".join(masked(f"{error}").split())[:300]
        kind = "" if isinstance(error, ValueError | OSError) else f"{type(error).__name__}: "
        raise ProjectError(f"{what}: {kind}{said}".rstrip(": ")) from error


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
    """Print a line of a command's result; raises `ToolError` if nobody can read it."""
    try:
        print(plain(text), flush=True)
    except OSError as error:
        sys.stdout = sys.stderr  # else Python would report it once more when it ends
        raise ToolError(f"standard output: {error.strerror}") from None
    except UnicodeEncodeError:  # the terminal's alphabet is a small one
        print(plain(text).encode("ascii", "replace").decode(), flush=True)


def plain(text: str) -> str:
    """Return a text with `?` for control characters: a name in a store can have any."""
    return "".join(character if character.isprintable() else "?" for character in text)


def masked(text: str) -> str:
    """Return the text with the users, passwords and tokens in its addresses masked."""
    # A password may have `/` and `@` in it, and any part of a query or a fragment can be a token.
    text = re.sub(r"(?<=://)([^\s/:@]*:\S*|[^\s/@]*)(?=@)", "***", text)
    text = re.sub(r"(\b\w[\w+.-]*://[^\s?#'\"]*)([?#])[^\s'\"]+", r"\1\2***", text)
    return re.sub(
        r"(?i)\b([\w-]*(?:password|passwd|pwd|token|secret|key|sig|signature))=[^\s&]+",
        r"\1=***",
        text,
    )
