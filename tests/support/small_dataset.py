"""A data set of six sequences, and md5s to compare the files that it is written to."""

import hashlib
from dataclasses import asdict
from pathlib import Path

from support.sections import data_params
from vanilla_lstm.task.artifacts import DataSet
from vanilla_lstm.task.schema import TrainDataParams
from vanilla_lstm.task.sequences import generate

DATA = data_params(n_steps=4)
OWN = TrainDataParams(n_samples=6, seed=1, min_insert=None)
X, Y = generate(6, 1, **asdict(DATA))
DATASET = DataSet(X, Y, DATA, OWN)
SECTIONS = {"data": asdict(DATA), "train_data": asdict(OWN)}


def md5(path: Path) -> str:
    """Return the md5 of a file."""
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()


def files() -> dict[str, str]:
    """Return the md5 of every file below the working directory."""
    return {str(path): md5(path) for path in Path().rglob("*") if path.is_file()}
