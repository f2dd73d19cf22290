"""The trials of a sweep: each is named by a hash of its commit, folder and overrides."""

import hashlib
import json
from collections.abc import Sequence
from typing import NamedTuple

from ..project.experiments import grid

ANSWERING = 15.0
"""Seconds that a git remote may take for an answer."""
CLONING = 1800.0
"""The same for all that it has."""


class Trial(NamedTuple):
    """One point of a sweep."""

    name: str
    """Of its DVC experiment."""
    overrides: tuple[str, ...]
    """As for `dvc exp run -S`."""

    def __str__(self) -> str:
        return f"{self.name} ({' '.join(self.overrides)})"


def trial(commit: str, folder: str, overrides: Sequence[str]) -> Trial:
    """Return the trial of one point."""
    return Trial(f"sweep-{digest([commit, folder, sorted(overrides)])}", tuple(overrides))


class Grid:
    """The trials of DVC's own expansion of overrides; raises `ProjectError`."""

    left = 0
    """How many points may be asked for beside `trials`."""

    def __init__(self, commit: str, folder: str, overrides: Sequence[str]) -> None:
        points = [trial(commit, folder, point) for point in grid(overrides)]
        self.trials = {each.name: each for each in points}
        """Those that there are, by name."""

    def ask(self) -> Trial | None:
        """Return a trial that is not known yet: there is none."""

    def tell(self, name: str, value: float | None) -> None:
        """Take note of a trial's value, or that it has none."""


def digest(values: object) -> str:
    """Return a short hash of plain values."""
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()[:12]
