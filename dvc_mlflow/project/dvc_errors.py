"""What DVC raises, in the tool's own terms: of a whole project, and of one file that it parses."""

import os
import posixpath
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from graphlib import CycleError
from typing import Any

from dvc.exceptions import DvcException, PrettyDvcException
from dvc.scm import SCMError
from dvc.utils.serialize import PARSERS, ParseError

from ..errors import ProjectError, masked, one_line

_MOST = 1_000_000  # values in a file that is parsed here, once all aliases are unfolded


@contextmanager
def errors_reported() -> Iterator[None]:
    """Turn DVC's errors into `ProjectError`, one line each."""
    with one_line("DVC's files cannot be read"):  # as at YAML like `? - ?`
        try:
            yield
        except CycleError as error:
            way = " -> ".join(error.args[1])
            raise ProjectError(f"stages depend on one another: {way}") from None
        except (DvcException, SCMError, OSError) as error:
            raise ProjectError(masked(_text(error))) from None


def _text(error: Exception) -> str:
    """Return what DVC says, in one line."""
    # It names files of a commit by their way from here to the root of the file system.
    text = str(error).replace("'./", "'").replace(f"{os.path.relpath('/')}/", "")
    text = " ".join(text.split())[:500] or type(error).__name__
    if isinstance(error, PrettyDvcException):  # it prints the rest, and the place, on a console
        text = f"{text}{_details(error) or '; `dvc status` says more'}"
    return text


def _details(error: Any) -> str:
    """Return where in a YAML file an error is, and what it is, if that is known."""
    cause = getattr(error, "exc", None)
    if errors := getattr(cause, "errors", None):
        return f": {errors[0].msg} at {' -> '.join(map(str, errors[0].path))}"
    cause = getattr(cause, "__cause__", None)
    if mark := getattr(cause, "problem_mark", None):
        return f": {getattr(cause, 'problem', None) or 'syntax error'} in line {mark.line + 1}"
    return ""


def parse(text: str, path: str) -> Any:
    """Return the content of a params, metrics or DVC file as DVC reads it.

    DVC's parsers raise what they like: `MemoryError`, `TypeError`, …; callers use `one_line`.
    """
    try:
        content = PARSERS[posixpath.splitext(path)[1].lower()](text, path)
    except ParseError as error:
        cause = " ".join(str(error.__cause__ or error).split())
        raise ValueError(cause[:200]) from None
    if "*" in text and _unfolded(content, {}) > _MOST:
        raise ValueError(f"its aliases unfold to more than {_MOST:,} values")
    is_zero = not content and re.fullmatch(r"0+(\.0*)?", text.strip())
    return 0 if is_zero else content  # DVC's parsers make {} of both 0 and nothing


def _unfolded(value: Any, counts: dict[int, float]) -> float:
    """Return how many values there are in a value; those that contain themselves have no end."""
    if not isinstance(value, Mapping | list):
        return 1
    if id(value) not in counts:
        counts[id(value)] = float("inf")
        inner = value.values() if isinstance(value, Mapping) else value
        counts[id(value)] = 1 + sum(_unfolded(each, counts) for each in inner)
    return counts[id(value)]
