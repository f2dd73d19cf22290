"""The LSTM layer, against Keras's own."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vanilla_lstm.backend import keras, tf
from vanilla_lstm.lstm import LSTM

pytestmark = pytest.mark.pipeline


def outputs_and_gradients(layer: Any, x: Any, mask: Any) -> list[Any]:
    """Return a layer's outputs where the mask shows them, and the gradients of a sum of them."""
    with tf.GradientTape() as tape:
        tape.watch(x)
        outputs = layer(x, mask=mask)
        if mask is not None and layer.return_sequences:
            outputs = tf.where(mask[..., None], outputs, 0.0)
        total = tf.reduce_sum(tf.sin(3 * outputs))  # each output with a gradient of its own
    return [outputs, *tape.gradient(total, [x, *layer.trainable_variables])]


@given(
    shape=st.tuples(st.integers(1, 4), st.integers(1, 7), st.integers(1, 3)),
    units=st.integers(1, 6),
    return_sequences=st.booleans(),
    masked=st.booleans(),
    compiled=st.booleans(),
    seed=st.integers(0, 99),
)
@settings(max_examples=40, deadline=None)
def test_same_as_keras(
    shape: tuple[int, int, int],
    units: int,
    return_sequences: bool,
    masked: bool,
    compiled: bool,
    seed: int,
) -> None:
    """With Keras's weights, outputs and gradients are Keras's, compiled and not."""
    rng = np.random.default_rng(seed)
    x = tf.constant(rng.normal(size=shape), tf.float32)
    mask = None
    if masked:
        n_samples, n_steps, _ = shape
        hidden = rng.integers(0, n_steps, n_samples)
        mask = tf.constant(np.arange(n_steps) >= hidden[:, None])
    reference = keras.layers.LSTM(units, return_sequences=return_sequences, seed=seed)
    reference.build(shape)
    reference.set_weights([rng.normal(size=w.shape) for w in reference.weights])
    layer = LSTM(units, return_sequences=return_sequences)
    layer.build(shape)
    layer.set_weights(reference.get_weights())
    run = tf.function(outputs_and_gradients, jit_compile=compiled)
    for ours, theirs in zip(run(layer, x, mask), run(reference, x, mask), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def test_lengths_unknown_to_tensorflow() -> None:
    """Keras's own `predict`, which compiles for batches and lengths of any size, gives the same."""
    layer = LSTM(3)
    model = keras.Sequential([keras.Input((None, 2)), layer])
    for n_samples, n_steps in [(5, 4), (2, 9), (7, 1)]:
        x = np.random.default_rng(n_steps).normal(size=(n_samples, n_steps, 2)).astype("float32")
        np.testing.assert_allclose(model.predict(x, 2, verbose=0), layer(x), rtol=1e-5, atol=1e-6)


def test_no_other_initial_state() -> None:
    """A state that would be ignored is refused."""
    with pytest.raises(NotImplementedError, match="zeros"):
        LSTM(3)(np.zeros((1, 2, 3), "float32"), initial_state=[np.ones((1, 3), "float32")] * 2)
