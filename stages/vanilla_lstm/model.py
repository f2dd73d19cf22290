"""The models: a one-hot layer, one recurrent layer and a softmax layer."""

from typing import Any

import numpy as np
import numpy.typing as npt

from vanilla_lstm.backend import keras, tf
from vanilla_lstm.lstm import LSTM
from vanilla_lstm.params import DataParams, ModelParams
from vanilla_lstm.sequences import PAD, UInt8Array

CELLS = {"lstm": LSTM, "gru": keras.layers.GRU, "simple_rnn": keras.layers.SimpleRNN}


@keras.saving.register_keras_serializable("vanilla_lstm")
class OneHot(keras.layers.Layer):
    """Encodes digits `[batch, n_steps]` as float32 `[batch, n_steps, n_symbols]`.

    `keras.layers.CategoryEncoding` would do but for sequences of one step, whose step axis it
    drops. With `mask_padding` the recurrent layer skips the steps where `PAD` stands.
    """

    def __init__(self, n_symbols: int, mask_padding: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.n_symbols = n_symbols
        self.mask_padding = mask_padding

    def call(self, digits: Any) -> Any:
        return keras.ops.one_hot(digits, self.n_symbols, dtype=self.compute_dtype)

    def compute_mask(self, digits: Any, previous_mask: Any = None) -> Any:
        return keras.ops.not_equal(digits, PAD) if self.mask_padding else None

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return (*input_shape, self.n_symbols)

    def get_config(self) -> dict[str, Any]:
        config = {**super().get_config(), "n_symbols": self.n_symbols}
        return {**config, "mask_padding": True} if self.mask_padding else config


@keras.saving.register_keras_serializable("vanilla_lstm")
class ChronoInitializer(keras.initializers.Initializer):
    """Chrono initialisation of an LSTM's bias, for memory over `1 .. t_max` steps.

    `b_f ~ log U(1, t_max - 1)`, `b_i = -b_f`, all else 0, in Keras's order i, f, c, o
    (Tallec & Ollivier 2018, "Can recurrent neural networks warp time?", section 2).
    """

    def __init__(self, t_max: int, seed: int) -> None:
        self.t_max = t_max
        self.seed = seed

    def __call__(self, shape: tuple[int, ...], dtype: str | None = None) -> Any:
        units = shape[0] // 4
        forget = np.log(np.random.default_rng(self.seed).uniform(1, self.t_max - 1, units))
        zeros = np.zeros(units)
        return keras.ops.convert_to_tensor(
            np.concatenate([-forget, forget, zeros, zeros]), dtype=dtype
        )

    def get_config(self) -> dict[str, Any]:
        return {"t_max": self.t_max, "seed": self.seed}


def build_model(
    data: DataParams, params: ModelParams, seed: int, padded: bool = False
) -> keras.Model:
    """Build a model from digits int64 `[batch, n_steps]` to probabilities float32.

    The probabilities are `[batch, n_max]`, or with `per_step` `[batch, n_steps, n_max]`; `n_steps`
    may differ from call to call. With `padded`, `PAD` stands for no step. Initial weights are a
    function of `seed`. Evaluation and serving read from `one_hot` which digits a model takes.
    """
    keras.utils.set_random_seed(seed)
    options: dict[str, Any] = {"return_sequences": data.per_step}
    if params.forget_bias == "chrono":
        t_max = data.n_steps + data.insert
        # Keras's own forget bias would overwrite the forget gate's part of the initial bias.
        options |= {"unit_forget_bias": False, "bias_initializer": ChronoInitializer(t_max, seed)}
    return keras.Sequential(
        [
            keras.Input((None,), dtype="int64", name="digits"),
            OneHot(data.n_symbols, padded, name="one_hot"),
            CELLS[params.cell](params.units, name=params.cell, **options),
            keras.layers.Dense(data.n_max, activation="softmax", name="probabilities"),
        ],
        name="vanilla_lstm",
    )


def predict(model: keras.Model, x: UInt8Array, batch_size: int) -> npt.NDArray[np.float32]:
    """Return the model's probabilities for digits `[n_samples, n_steps]`, batch by batch."""
    program = tf.function(model, jit_compile=True)
    starts = range(0, len(x), batch_size)
    parts = [program(tf.constant(x[i : i + batch_size], tf.int64)).numpy() for i in starts]
    return np.concatenate(parts)


def summary(model: keras.Model) -> str:
    """Return Keras's table of the model's layers and parameters.

    To be taken before training: afterwards Keras counts the optimizer's variables as well.
    """
    lines: list[str] = []
    model.summary(line_length=80, print_fn=lines.append)
    return "\n".join(lines)
