"""The points of a sweep: each is a trial, whose name is a hash of its commit and params."""

import hashlib
import json
from collections.abc import Sequence
from functools import cache, partial
from posixpath import basename
from typing import NamedTuple

from ..pipeline.keys import allowed_key
from ..project.experiments import PARAMS, content, grid, overridden
from ..project.project import Project


class Trial(NamedTuple):
    """One point of a sweep."""

    name: str
    """Of its DVC experiment: the same commit and params always have the same name."""
    overrides: tuple[str, ...]
    """As for `dvc exp run -S`."""

    def __str__(self) -> str:
        return f"{self.name} ({' '.join(self.overrides)})"


class Points:
    """Makes the trials of one commit, whose params files are those of the working directory."""

    def __init__(self, project: Project, commit: str) -> None:
        self._folder, self._commit = project.folder, commit
        self.content = cache(partial(content, project))
        self._has_params = project.text(PARAMS) is not None

    def trial(self, overrides: Sequence[str]) -> Trial:
        """Return the trial of one point; raises `ProjectError` if no trial could use it."""
        found = overridden(self.content, overrides)
        changed = {f: v for f, v in found.items() if digest(v) != digest(self.content(f))}
        own = changed.pop(PARAMS, self.content(PARAMS) if self._has_params else {})
        what = [self._commit, own, *filter(None, (changed, self._folder))]
        return Trial(f"sweep-{digest(what)}", tuple(overrides))


class Grid:
    """The trials of DVC's own expansion of overrides; raises `ProjectError`."""

    left = 0
    """How many points may be asked for beside `trials`."""

    def __init__(self, overrides: Sequence[str], points: Points) -> None:
        found = map(points.trial, grid(overrides))
        self.trials = {trial.name: trial for trial in found}
        """Those that there are, by name."""
        sets = [
            {override.split("=")[0]: override for override in t.overrides}
            for t in self.trials.values()
        ]
        self.varied = (
            [key for key in sets[0] if len({own[key] for own in sets}) > 1] if sets else []
        )
        """The keys of the params that differ between trials."""

    def ask(self) -> Trial | None:
        """Return a trial that is not known yet: there is none."""

    def tell(self, name: str, value: float | None) -> None:
        """Take note of a trial's value, or that it has none."""


def column(key: str) -> str:
    """Return the key in MLflow of a param in an override."""
    file, _, own = key.rpartition(":")
    start = f"{basename(file).rpartition('.')[0]}." if file else ""
    return allowed_key(start + own)


def digest(values: object) -> str:
    """Return a short hash of plain values, the same for 1 and 1.0."""
    plain = json.loads(json.dumps(values, default=str), parse_int=float)
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:12]
