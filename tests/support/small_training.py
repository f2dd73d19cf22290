"""A training so small that it takes a second: model, data and recipe."""

import re
from typing import Any

from support.params import data_params, model_params, train_params
from vanilla_lstm.learning import training
from vanilla_lstm.learning.backend import keras, tf
from vanilla_lstm.learning.evaluation import Epoch
from vanilla_lstm.learning.model import build_model
from vanilla_lstm.task.schema import PhaseParams, TrainParams
from vanilla_lstm.task.sequences import UInt8Array, generate

N_STEPS = 6
SEED = 3


def small_model(cell: Any = "lstm", per_step: bool = False) -> keras.Model:
    """Return a model of 8 units; every call gives the same weights."""
    return build_model(data_params(per_step=per_step), model_params(cell=cell, units=8), seed=5)


def data(
    n: int, targets: list[int] | None = None, per_step: bool = False
) -> tuple[UInt8Array, UInt8Array]:
    """Return `n` sequences of `N_STEPS` digits and their labels."""
    return generate(n, 11, n_max=5, n_steps=N_STEPS, targets=targets or [1], per_step=per_step)


def recipe(epochs: int, learning_rate: float = 0.01, **values: Any) -> TrainParams:
    """Return the section `train` with batches of 8, and other `values` on request."""
    small = {"batch_size": 8, "seed": SEED, "epochs": epochs, "learning_rate": learning_rate}
    return train_params(**small | values)


def fit(model: keras.Model, x: UInt8Array, y: UInt8Array, params: TrainParams) -> list[Epoch]:
    """Train to the end and return the measures of every epoch."""
    return [*training.fit(model, x, y, params)]


def curriculum(n_steps: int, epochs: int, learning_rate: float) -> tuple[PhaseParams, ...]:
    """Return a curriculum of one phase."""
    return (PhaseParams(n_steps=n_steps, epochs=epochs, learning_rate=learning_rate),)


def weights(model: keras.Model) -> bytes:
    """Return the bytes of all weights."""
    return b"".join(w.numpy().tobytes() for w in model.weights)


_DEFINITION = re.compile(r"%?([\w.-]+) = \(?\w+\[([\d,]*)\]")
_DOT = re.compile(r" dot\(%?([\w.-]+), .*lhs_contracting_dims={([\d,]+)}")
_OTHERS = re.compile(r" (convolution|custom-call|ragged-dot|scaled-dot)\(.*")


def contractions(hlo: str) -> list[int]:
    """Return the length of each contraction; raise `ValueError` if one cannot be determined."""
    if unknown := _OTHERS.search(hlo):
        raise ValueError(f"may add up as its library chooses: {unknown[0].strip()}")
    shapes = dict(_DEFINITION.findall(hlo))
    lengths = []
    for operand, dims in _DOT.findall(hlo):
        shape = [int(n) for n in shapes[operand].split(",")]
        length = 1
        for dim in dims.split(","):
            length *= shape[int(dim)]
        lengths.append(length)
    if len(lengths) != hlo.count(" dot("):
        raise ValueError("a dot is written in another form")
    return lengths


def compiled(function: tf.types.experimental.GenericFunction, *arguments: object) -> str:
    """Return the HLO that XLA compiles `function` to for these arguments."""
    text: str = function.experimental_get_compiler_ir(*arguments)(stage="optimized_hlo")
    return text
