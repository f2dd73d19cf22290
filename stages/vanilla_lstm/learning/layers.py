"""The models' layers other than the LSTM.

Where Keras has the same layer, weights and outputs are Keras's. Only the matrix products differ:
they sum in the same order on every processor (`products`).
"""

from typing import Any

from vanilla_lstm.learning.backend import keras, tf
from vanilla_lstm.learning.initializers import Orthogonal
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

    def __init__(self, units: int, **kwargs: Any) -> None:
        super().__init__(units, **{"recurrent_initializer": Orthogonal, **kwargs})

    def call(self, sequence: Any, states: Any, training: Any = False) -> Any:
        recurrent = product(states[0], self.recurrent_kernel.value)
        h = self.activation(product(sequence, self.kernel.value) + self.bias.value + recurrent)
        return h, [h]
