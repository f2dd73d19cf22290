"""Initial weights and biases."""

from typing import Any

import numpy as np

from vanilla_lstm.learning.backend import keras

_registered = keras.saving.register_keras_serializable("vanilla_lstm")


@_registered
class Orthogonal(keras.initializers.Orthogonal):
    """`keras.initializers.Orthogonal`, with the same bits on every processor.

    Keras calls a QR decomposition. From 48 columns on it multiplies matrices, in blocks that depend
    on the processor's caches. Here the same matrix comes from the modified Gram-Schmidt process in
    float64 (Golub & Van Loan 2013, "Matrix Computations", section 5.2.8).
    """

    def __call__(self, shape: tuple[int, int], dtype: str | None = None) -> Any:
        """Return a matrix whose rows, or columns if there are fewer, are orthonormal."""
        size = max(shape), min(shape)
        q = np.array(keras.random.normal(size, seed=self.seed, dtype=dtype), np.float64)
        for i in range(size[1]):
            column, rest = q[:, i : i + 1], q[:, i + 1 :]
            column /= np.sqrt((column**2).sum(0))
            rest -= column * (column * rest).sum(0)
        return keras.ops.convert_to_tensor(self.gain * (q.T if shape[0] < shape[1] else q), dtype)


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
