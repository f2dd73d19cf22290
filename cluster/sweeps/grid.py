"""The trials of a sweep: DVC's own expansion of `-S`, and a name for each that never changes."""

import hashlib
import json
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from dvc.exceptions import DvcException
from dvc.utils.cli_parse import to_path_overrides
from dvc.utils.hydra import apply_overrides, get_hydra_sweeps, to_hydra_overrides
from hydra.errors import HydraException

from sweeps.errors import SweepError


class Trial(NamedTuple):
    """One point of the grid."""

    name: str
    """Of its DVC experiment: the same commit and the same values always give the same."""
    overrides: tuple[str, ...]
    """As for `dvc exp run -S`."""


def expand(overrides: Sequence[str], commit: str, root: Path) -> list[Trial]:
    """Return the trials of a grid, in the order in which `dvc exp run --queue` would have them.

    Raises `SweepError` if an override cannot be read, or names what the params file does not have.
    """
    try:
        points = get_hydra_sweeps(to_path_overrides(overrides))
        for path, lines in points[0].items():
            _try_out(root / path, lines)
    except (DvcException, HydraException, OSError) as error:
        cause = error.__cause__ or error
        shown = " ".join(f"-S '{override}'" for override in overrides)
        raise SweepError(f"{shown}: {' '.join(str(cause).split())}") from None
    trials: dict[str, Trial] = {}
    for point in points:
        values = {
            f"{path}:{override.type.name}:{override.key_or_group}": override.value()
            for path, lines in point.items()
            for override in to_hydra_overrides(lines)
        }
        text = json.dumps([commit, values], sort_keys=True, default=str)
        name = f"sweep-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
        lines = [f"{path}:{line}" for path, lines in point.items() for line in lines]
        trials.setdefault(name, Trial(name, tuple(x.removeprefix("params.yaml:") for x in lines)))
    return list(trials.values())


def _try_out(params: Path, overrides: list[str]) -> None:
    """Apply overrides to a copy, which raises what would stop each trial."""
    with tempfile.TemporaryDirectory() as folder:
        apply_overrides(shutil.copy(params, folder), overrides)
