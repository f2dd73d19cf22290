"""What can go wrong without a bug: each ends a stage with exit status 1 and its own lines.

StageError
├── ParamsError           params.yaml breaks a rule
├── FileError             a file is missing, damaged, was changed or cannot be written
└── TrackingError         the MLflow store cannot be used
"""

import math
import reprlib
from collections.abc import Iterable
from pathlib import Path


class StageError(Exception):
    """A mistake or a fault outside of the program; the message is for its user."""


class ParamsError(StageError):
    """params.yaml breaks one rule or more: one line each, as `broken_rule` tells it."""

    def __init__(self, path: Path, problems: Iterable[str]) -> None:
        lines = [f"{path}: {problem}" for problem in problems]
        more = [f"{path}: … and {len(lines) - 20} more"] if len(lines) > 20 else []
        super().__init__("\n".join(lines[:20] + more))


class FileError(StageError):
    """A file cannot be read or written as what it should be."""

    def __init__(self, path: Path, problem: str, cure: str) -> None:
        super().__init__(f"{path}: {problem}; {cure}")


class TrackingError(StageError):
    """The MLflow store at `address` cannot be used."""

    def __init__(self, address: str, problem: str, cure: str) -> None:
        super().__init__(f"MLflow at {address}: {problem}; {cure}")


def broken_rule(key: str, rule: str, *received: object) -> str:
    """Tell where (empty: in the file as a whole), the rule, and what stands there, if anything."""
    shown = "".join(f"; received {_short(value)}" for value in received)
    return f"{key and key + ': '}{rule}{shown}"


class _Yaml(reprlib.Repr):
    """Writes values as YAML does, and briefly, whatever aliases or long numbers make of them."""

    def repr_NoneType(self, value: None, level: int) -> str:  # noqa: N802
        return "null"

    def repr_bool(self, value: bool, level: int) -> str:
        return str(value).lower()

    def repr_int(self, value: int, level: int) -> str:  # Python itself refuses to write long ones
        digits = int(value.bit_length() * math.log10(2)) + 1
        return str(value) if digits <= 40 else f"<a number of about {digits} digits>"


def _short(value: object) -> str:
    text = _Yaml().repr(value)
    return text if len(text) <= 120 else f"{text[:117]}..."
