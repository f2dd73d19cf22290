"""The params of the post, whatever params.yaml has now, with some values changed."""

from dataclasses import replace
from typing import Any

from vanilla_lstm.task.schema import DataParams, ModelParams, TrainParams

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
