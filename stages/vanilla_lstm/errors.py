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
from typing import NamedTuple


class StageError(Exception):
    """A mistake or a fault outside of the program; the message is for its user."""


NOTHING = object()
"""Stands in a `Problem` that has no value to show."""


class Problem(NamedTuple):
    """One broken rule: where (empty: in the file as a whole), the rule, and what stands there."""

    key: str
    rule: str
    received: object = NOTHING

    def __str__(self) -> str:
        received = "" if self.received is NOTHING else f"; received {_short(self.received)}"
        return f"{self.key and self.key + ': '}{self.rule}{received}"


class ParamsError(StageError):
    """params.yaml breaks one rule or more: one line each."""

    def __init__(self, path: Path, problems: Iterable[Problem]) -> None:
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
