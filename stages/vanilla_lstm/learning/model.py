"""The models: a one-hot layer, one recurrent layer and a softmax layer."""

from typing import Any

import numpy as np
import numpy.typing as npt

from vanilla_lstm.learning.backend import keras, tf
from vanilla_lstm.learning.initializers import ChronoInitializer
from vanilla_lstm.learning.layers import Dense, OneHot, SimpleRNNCell
from vanilla_lstm.learning.lstm import LSTM
from vanilla_lstm.task.schema import DataParams, ModelParams
from vanilla_lstm.task.sequences import UInt8Array


def _simple_rnn(units: int, **options: Any) -> keras.layers.RNN:
    # Named, because Keras would number a process's cells and write the number to the file.
    return keras.layers.RNN(SimpleRNNCell(units, name="cell"), **options)


CELLS = {"lstm": LSTM, "simple_rnn": _simple_rnn}


def build_model(
    data: DataParams, params: ModelParams, seed: int, padded: bool = False
) -> keras.Model:
    """Build a model from digits int64 `[batch, n_steps]` to probabilities float32.

    The probabilities are `[batch, n_max]`, or with `per_step` `[batch, n_steps, n_max]`; `n_steps`
    may differ from call to call. With `padded`, steps that hold `PAD` are skipped. Initial weights
    depend on `seed` alone. Evaluation and serving read from the layer `one_hot` which digits a
    model takes.
    """
    keras.utils.set_random_seed(seed)
    options: dict[str, Any] = {"return_sequences": data.per_step}
    if params.cell_noise:
        options |= {"cell_noise": params.cell_noise, "seed": seed}
    if params.forget_bias == "chrono":
        t_max = data.n_steps + data.insert
        # Keras's own forget bias would overwrite the forget gate's part of the initial bias.
        options |= {"unit_forget_bias": False, "bias_initializer": ChronoInitializer(t_max, seed)}
    return keras.Sequential(
        [
            keras.Input((None,), dtype="int64", name="digits"),
            OneHot(data.n_symbols, padded, name="one_hot"),
            CELLS[params.cell](params.units, name=params.cell, **options),
            Dense(data.n_max, activation="softmax", name="probabilities"),
        ],
        name="vanilla_lstm",
    )


def as_program(model: keras.Model) -> tf.types.experimental.GenericFunction:
    """Return the model as one XLA program."""
    return tf.function(model, jit_compile=True, autograph=False)


def predict(model: keras.Model, x: UInt8Array, batch_size: int) -> npt.NDArray[np.float32]:
    """Return the model's probabilities for digits `[n_samples, n_steps]`, batch by batch."""
    program = as_program(model)
    starts = range(0, len(x), batch_size)
    parts = [program(tf.constant(x[i : i + batch_size], tf.int64)).numpy() for i in starts]
    return np.concatenate(parts)


def summary(model: keras.Model) -> str:
    """Return Keras's table of the model's layers and parameters.

    Call it before training: afterwards Keras counts the optimizer's variables as well.
    """
    lines: list[str] = []
    model.summary(line_length=80, print_fn=lines.append)
    return "\n".join(lines) + "\n"
