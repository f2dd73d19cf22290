"""The names that DVC and sweeps make up for experiments, such as `stoic-deva`."""

import re
from functools import cache
from pathlib import Path

import dvc

_HASHED = re.compile(r"(exp|sweep)-[0-9a-f]{5,12}")
"""How DVC named experiments before version 3, and how `dvc-mlflow sweep` names them."""


def is_generated(name: str) -> bool:
    """Whether DVC or a sweep has made up the name of an experiment, such as `stoic-deva`."""
    dashes = [i for i, sign in enumerate(name) if sign == "-"]  # one of its words is `so-so`
    made = any({name[:i], name[i + 1 :]} <= _words() for i in dashes)
    return made or bool(_HASHED.fullmatch(name))


@cache
def _words() -> frozenset[str]:
    """Return the words of which DVC makes names; importing that module takes 0.1 s."""
    text = Path(dvc.__path__[0], "repo", "experiments", "utils.py").read_text()
    return frozenset(re.findall(r"['\"]([\w'-]{4,5})['\"][,)]", text))
