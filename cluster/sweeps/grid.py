"""The trials of a sweep: DVC's own expansion of `-S`, and a name for each that never changes."""

import hashlib
import json
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from dvc.exceptions import DvcException
from dvc.utils.cli_parse import to_path_overrides
from dvc.utils.hydra import apply_overrides, get_hydra_sweeps
from hydra.errors import HydraException

from bridge.run.errors import StageError
from bridge.run.params import PARAMS, read


class Trial(NamedTuple):
    """One point of the grid."""

    name: str
    """Of its DVC experiment: the same commit and the same params always give the same."""
    overrides: tuple[str, ...]
    """As for `dvc exp run -S`."""
    params: dict[str, Any]
    """All of them, overridden or not."""


class Grid:
    """A search that has nothing to ask for: all its trials are known from the start."""

    left = 0

    def __init__(self, trials: list[Trial]) -> None:
        self.trials = trials

    def ask(self) -> Trial | None:
        """Return no trial."""

    def tell(self, trial: Trial, value: float | None) -> None:
        """Take the result of a trial; none if it has failed."""


def expand(overrides: Sequence[str], commit: str, root: Path = Path()) -> list[Trial]:
    """Return the trials of a grid, in the order in which `dvc exp run --queue` would have them.

    Raises `StageError` if an override cannot be read, or names what the params file does not have.
    """
    with overrides_read(overrides):
        by_file = to_path_overrides(overrides)
        if others := by_file.keys() - {f"{PARAMS}"}:
            raise ValueError(f"{others.pop()}: only {PARAMS} can be swept")
        points = [lines for point in get_hydra_sweeps(by_file) for lines in point.values()]
        trials = [make(point, commit, root) for point in points]
    return list({trial.name: trial for trial in trials}.values())


def make(overrides: Sequence[str], commit: str, root: Path = Path()) -> Trial:
    """Return the trial of one point; raises `StageError` as `expand` does."""
    with tempfile.TemporaryDirectory() as folder, overrides_read(overrides):
        file = Path(folder, PARAMS)
        file.write_text(yaml.safe_dump(read(root / PARAMS)[0]))
        apply_overrides(file, list(overrides))
        params, _ = read(file)
    return Trial(f"sweep-{digest([commit, params])}", tuple(overrides), params)


def digest(values: object) -> str:
    """Return a short hash of plain values, in which 1 and 1.0 are the same."""
    plain = json.loads(json.dumps(values, default=str), parse_int=float)
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:12]


@contextmanager
def overrides_read(overrides: Sequence[str]) -> Iterator[None]:
    """Raise `StageError`, with the overrides, for what DVC, Hydra and Optuna say of them."""
    try:
        yield
    except (DvcException, HydraException, ValueError) as error:
        shown = " ".join(f"'{override}'" for override in overrides)
        raise StageError(f"{shown}: {error.__cause__ or error}") from None
