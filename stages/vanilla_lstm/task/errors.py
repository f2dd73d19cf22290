"""Errors that are not bugs: each ends a script with its message and exit status 1.

StageError
├── ParamsError           a params file breaks a rule
└── FileError             a file is missing, damaged or not writable
"""

import reprlib
from collections.abc import Iterable
from pathlib import Path


class StageError(SystemExit):
    """A user's mistake, or a failure outside the program; the message is for the user.

    Where nobody catches a `SystemExit` with a message, Python prints that and exits with status 1.
    """


class ParamsError(StageError):
    """A params file breaks at least one rule; one line per rule, formatted by `broken_rule`."""

    def __init__(self, path: Path, problems: Iterable[str]) -> None:
        lines = [f"{path}: {problem}" for problem in problems]
        more = [f"{path}: … and {len(lines) - 20} more"] if len(lines) > 20 else []
        super().__init__("\n".join(lines[:20] + more))


class FileError(StageError):
    """A file cannot be used."""

    def __init__(self, path: Path, problem: str, cure: str) -> None:
        super().__init__(f"{path}: {problem}; {cure}")


def broken_rule(key: str, rule: str, *received: object) -> str:
    """Format a broken rule: key (empty for the whole file), rule, value received."""
    values = "".join(f"; received {_shown(value)}" for value in received)
    return f"{key and key + ': '}{rule}{values}"


def _shown(value: object) -> str:
    """Return a value as short YAML, however large its aliases would expand."""
    if isinstance(value, bool) or value is None:
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int) and value.bit_length() > 128:  # Python refuses to print long ones
        return f"a number of {value.bit_length()} bits"
    return f"{reprlib.repr(value):.120}"
