"""The models' layers other than the LSTM, and an initial bias.

Where Keras has the same layer, weights and outputs are Keras's. Only the matrix products differ:
they sum in the same order on every processor (`products`).
"""

from typing import Any

import numpy as np

from vanilla_lstm.learning.backend import keras, tf
from vanilla_lstm.learning.products import product
from vanilla_lstm.task.sequences import PAD

_registered = keras.saving.register_keras_serializable("vanilla_lstm")


@_registered
class OneHot(keras.layers.Layer):
    """Encodes digits `[batch, n_steps]` as float32 `[batch, n_steps, n_symbols]`.

    `keras.layers.CategoryEncoding` would drop the step axis of one-step sequences. With
    `mask_padding` the recurrent layer skips the steps that hold `PAD`.
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


@_registered
class Dense(keras.layers.Dense):
    """`keras.layers.Dense`: `[..., n]` to `[..., units]`."""

    def call(self, inputs: Any, training: Any = None) -> Any:
        rows = tf.reshape(inputs, [-1, inputs.shape[-1]])
        outputs = product(rows, self.kernel.value) + self.bias.value
        shape = tf.concat([tf.shape(inputs)[:-1], [self.units]], 0)
        return self.activation(tf.reshape(outputs, shape))


@_registered
class SimpleRNNCell(keras.layers.SimpleRNNCell):
    """`keras.layers.SimpleRNNCell`: h' = tanh(W x + U h + b) (Elman 1990)."""

    def call(self, sequence: Any, states: Any, training: Any = False) -> Any:
        recurrent = product(states[0], self.recurrent_kernel.value)
        h = self.activation(product(sequence, self.kernel.value) + self.bias.value + recurrent)
        return h, [h]


@_registered
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
