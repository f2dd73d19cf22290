"""The post's params, whatever params.yaml has now: as values, as a text, and a small data set."""

import json
import re
from dataclasses import asdict, replace
from typing import Any

from ruamel.yaml import YAML

from vanilla_lstm.task.artifacts import DataSet
from vanilla_lstm.task.errors import ParamsError
from vanilla_lstm.task.memory import check_memory
from vanilla_lstm.task.params import parse_params
from vanilla_lstm.task.schema import DataParams, ModelParams, TrainDataParams, TrainParams
from vanilla_lstm.task.sequences import generate

RECIPE: dict[str, Any] = {
    "data": {
        "n_max": 5,
        "n_steps": 10,
        "targets": [1],
        "insert": 0,
        "marked": True,
        "per_step": False,
    },
    "train_data": {"n_samples": 1000, "seed": 1234, "min_insert": None},
    "test_data": {"n_samples": 1000, "seed": 4321, "n_steps": None, "insert": None},
    "model": {"cell": "lstm", "units": 25, "forget_bias": "one", "cell_noise": 0.0},
    "train": {
        "epochs": 250,
        "batch_size": 32,
        "learning_rate": 0.001,
        "validation_split": 0.2,
        "seed": 1234,
        "clipnorm": None,
        "keep": "last",
        "curriculum": [],
        "min_steps": None,
        "stop_at_accuracy": None,
    },
    "evaluate": {"batch_size": 1000},
}
"""The values of params.yaml as the project ships it."""


def data_params(**values: Any) -> DataParams:
    """Return the section `data`."""
    return replace(DataParams.of(RECIPE["data"]), **values)


def model_params(**values: Any) -> ModelParams:
    """Return the section `model`."""
    return replace(ModelParams.of(RECIPE["model"]), **values)


def train_params(**values: Any) -> TrainParams:
    """Return the section `train`."""
    return replace(TrainParams.of(RECIPE["train"]), **values)


TEXT = "".join(
    f"{section}:\n" + "".join(f"  {key}: {json.dumps(value)}\n" for key, value in keys.items())
    for section, keys in RECIPE.items()
)
VALUES: dict[str, dict[str, Any]] = YAML(typ="safe").load(TEXT)
KEYS = [f"{section}.{key}" for section, keys in VALUES.items() for key in keys]


def line_of(key: str, text: str = TEXT) -> int:
    """Return the index of the line that has a key."""
    section, name = key.split(".")
    lines = text.splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith(f"{section}:"))
    return next(i for i, line in enumerate(lines) if i > start and line.startswith(f"  {name}:"))


def changed(**values: str | None) -> str:
    """Return params.yaml with other YAML for some keys (`__`: a dot; None: no key)."""
    lines = TEXT.splitlines()
    for dotted, value in values.items():
        key = dotted.replace("__", ".")
        lines[line_of(key)] = "  # gone" if value is None else f"  {key.split('.')[1]}: {value}"
    return "\n".join(lines)


def of(key: str, value: str | None) -> str:
    """Return params.yaml with other YAML for one key."""
    return changed(**{key.replace(".", "__"): value})


def refusal(text: str) -> list[str]:
    """Return the lines that refuse a text, and assert that each is well-formed."""
    try:
        check_memory(parse_params(text))
    except ParamsError as error:
        lines = str(error).splitlines()
    else:
        raise AssertionError(f"accepted:\n{text}")
    assert 0 < len(lines) <= 21
    for line in lines:
        assert re.match(r"params\.yaml: (.+: )?must |params\.yaml: … and \d+", line), line
        assert len(line) < 400, line
    return lines


DATA = data_params(n_steps=4)
OWN = TrainDataParams(n_samples=6, seed=1, min_insert=None)
X, Y = generate(6, 1, **asdict(DATA))
DATASET = DataSet(X, Y, DATA, OWN)
SECTIONS = {"data": asdict(DATA), "train_data": asdict(OWN)}
