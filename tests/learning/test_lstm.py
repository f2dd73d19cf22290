"""The LSTM layer equals Keras's own; cell noise is its only addition."""

from typing import Any

import numpy as np
import pytest

from vanilla_lstm.learning.backend import keras, tf
from vanilla_lstm.learning.lstm import LSTM

pytestmark = pytest.mark.pipeline


def outputs_and_gradients(layer: Any, x: Any, mask: Any, training: bool) -> list[Any]:
    """Return a layer's unmasked outputs, and the gradients of a scalar computed from them."""
    with tf.GradientTape() as tape:
        tape.watch(x)
        outputs = layer(x, mask=mask, training=training)
        if mask is not None and layer.return_sequences:
            outputs = tf.where(mask[..., None], outputs, 0.0)
        total = tf.reduce_sum(tf.sin(3 * outputs))  # gives each output a different gradient
    return [outputs, *tape.gradient(total, [x, *layer.trainable_variables])]


@pytest.mark.parametrize(
    ("shape", "units", "flags"),
    [
        ((3, 7, 2), 5, (True, True, True, True)),
        ((4, 5, 3), 6, (False, True, False, False)),
        ((1, 1, 1), 1, (False, False, True, True)),
    ],
)
def test_same_as_keras(
    shape: tuple[int, int, int], units: int, flags: tuple[bool, bool, bool, bool]
) -> None:
    """With equal weights, outputs and gradients equal Keras's, compiled or not.

    This includes gradients of a call outside training, which stores nothing for them.
    """
    return_sequences, masked, compiled, training = flags
    rng = np.random.default_rng(0)
    x = tf.constant(rng.normal(size=shape), tf.float32)
    n_samples, n_steps, _ = shape
    hidden = rng.integers(0, n_steps, n_samples)
    mask = tf.constant(np.arange(n_steps) >= hidden[:, None]) if masked else None
    reference = keras.layers.LSTM(units, return_sequences=return_sequences)
    reference.build(shape)
    reference.set_weights([rng.normal(size=w.shape) for w in reference.weights])
    layer = LSTM(units, return_sequences=return_sequences)
    layer.build(shape)
    layer.set_weights(reference.get_weights())
    run = tf.function(outputs_and_gradients, jit_compile=compiled)
    made = [run(each, x, mask, training) for each in (layer, reference)]
    for ours, theirs in zip(*made, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


def test_no_other_initial_state() -> None:
    """An initial state is refused rather than ignored."""
    with pytest.raises(NotImplementedError, match="zeros"):
        LSTM(3)(np.zeros((1, 2, 3), "float32"), initial_state=[np.ones((1, 3), "float32")] * 2)


def test_cell_noise() -> None:
    """In training, noise adds the same normal draw to a cell at every step; otherwise none."""
    n_samples, units, noise = 200, 20, 0.01
    layer = LSTM(units, return_sequences=True, cell_noise=noise, seed=1)
    layer.build((n_samples, 3, 2))
    zeros = [np.zeros(w.shape) for w in layer.weights]
    layer.set_weights(zeros)  # every gate is 1/2, and only noise enters a cell
    x = tf.zeros((n_samples, 3, 2))
    np.testing.assert_array_equal(layer(x), 0)
    first, second = (np.arctanh(2 * layer(x, training=True)) for _ in range(2))
    draws = first[:, 0]
    np.testing.assert_allclose(first[:, 1], 1.5 * draws, rtol=1e-4)
    np.testing.assert_allclose(first[:, 2], 1.75 * draws, rtol=1e-4)
    # 4,000 normal draws: the mean's standard error is 1.6 % of the noise, the deviation's 1.1 %.
    assert abs(draws.mean()) < 0.08 * noise
    assert abs(draws.std() / noise - 1) < 0.06
    assert not np.allclose(first, second)
    again = LSTM(units, return_sequences=True, cell_noise=noise, seed=1)
    again.build((n_samples, 3, 2))
    again.set_weights(zeros)
    np.testing.assert_array_equal(np.arctanh(2 * again(x, training=True)), first)


def test_gradient_with_cell_noise() -> None:
    """The gradient with noise agrees with finite differences."""
    layer = LSTM(4, cell_noise=0.5, seed=1)
    layer.build((3, 5, 2))
    x = np.random.default_rng(0).normal(size=(3, 5, 2)).astype("float32")
    seed = layer.cell.seed_generator.state

    def total(x: Any) -> Any:
        seed.assign([1, 0])  # the same noise in every call
        return tf.reduce_sum(tf.sin(layer(x, training=True)))

    with tf.GradientTape() as tape:
        variable = tf.constant(x)
        tape.watch(variable)
        value = total(variable)
    gradient = tape.gradient(value, variable).numpy()
    step = np.zeros_like(x)
    for index in [(0, 0, 0), (1, 2, 1), (2, 4, 0)]:
        step[:] = 0
        step[index] = 1e-2
        difference = (total(tf.constant(x + step)) - total(tf.constant(x - step))) / 2e-2
        assert gradient[index] == pytest.approx(float(difference), rel=2e-2, abs=1e-4)
