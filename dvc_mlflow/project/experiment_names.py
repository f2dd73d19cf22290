"""The names that DVC and sweeps make up for experiments, such as `stoic-deva`."""

import re
from functools import cache
from pathlib import Path

import dvc


def is_generated(name: str) -> bool:
    """Whether DVC or a sweep has made up the name of an experiment, such as `stoic-deva`."""
    return bool(_generated().fullmatch(name))


@cache
def _generated() -> re.Pattern[str]:
    """Return how such names look; to import DVC's module of its words would take 0.1 s."""
    text = Path(dvc.__path__[0], "repo", "experiments", "utils.py").read_text()
    words = "|".join(re.findall(r"['\"]([\w'-]{4,5})['\"][,)]", text))
    return re.compile(f"({words})-({words})|exp-[0-9a-f]{{5}}|sweep-[0-9a-f]{{12}}")
