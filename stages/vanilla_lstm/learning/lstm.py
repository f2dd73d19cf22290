"""Keras's LSTM layer, its recurrence written out for XLA.

Same weights, file format and, up to summation order, outputs as `keras.layers.LSTM`. Differentiated
by TensorFlow, one step of that layer becomes some forty small kernels, and rows of 25 units do not
fill whole vector registers. Here samples are the last axis and the gradient is written by hand
(Graves 2012, "Supervised Sequence Labelling with Recurrent Neural Networks", section 4.6). The
weights' gradient is summed step by step and only gates and cells are kept, so that a step of a long
sequence costs about as much as one of a short sequence.
"""

from typing import Any

from vanilla_lstm.learning.backend import keras, tf
from vanilla_lstm.learning.initializers import Orthogonal
from vanilla_lstm.learning.products import contract

_SHUT = -1e9  # the gates' input at a masked step: nothing enters or leaves a cell


@keras.saving.register_keras_serializable("vanilla_lstm")
class LSTM(keras.layers.LSTM):
    """`keras.layers.LSTM` with its default activations. Masks may cover leading steps only.

    In training, noise with standard deviation `cell_noise` is added to the cells at every step. It
    is drawn once per unit and sequence, so it adds up over the steps (the cumulative additive noise
    of Jim, Giles & Horne 1996, "An analysis of noise in recurrent neural networks"). A memory that
    holds against this drift also holds over sequences longer than those in training.
    """

    def __init__(self, units: int, cell_noise: float = 0.0, **kwargs: Any) -> None:
        super().__init__(units, **{"recurrent_initializer": Orthogonal, **kwargs})
        self.cell_noise = cell_noise

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        return {**config, "cell_noise": self.cell_noise} if self.cell_noise else config

    def call(
        self, sequences: Any, initial_state: Any = None, mask: Any = None, training: Any = False
    ) -> Any:
        """Return the last state `[batch, units]`, or with `return_sequences` all of them.

        `sequences` are float32 `[batch, n_steps, n_features]`, all states float32
        `[batch, n_steps, units]`.
        """
        if initial_state is not None:
            raise NotImplementedError("the initial state must be zeros")
        x = tf.transpose(sequences, [1, 2, 0])
        x = tf.concat([x, tf.ones_like(x[:, :1])], 1)  # the bias is the weight of a constant 1
        cell = self.cell
        weights = [cell.recurrent_kernel.value, cell.kernel.value, cell.bias.value[None]]
        noise = None
        if training and self.cell_noise:
            shape = (self.units, tf.shape(x)[2])
            noise = keras.random.normal(shape, 0, self.cell_noise, seed=cell.seed_generator)
        states, last = _recurrence(x, tf.concat(weights, 0), mask, noise, bool(training))
        return tf.transpose(states, [2, 0, 1]) if self.return_sequences else tf.transpose(last)


def _recurrence(x: Any, kernel: Any, mask: Any, noise: Any, training: bool) -> tuple[Any, Any]:
    """Return all states `[n_steps, units, batch]` and the last `[units, batch]`.

    `x` is `[n_steps, n_features, batch]`; `kernel` is `[units + n_features, 4 * units]`, its
    columns in Keras's order i, f, c, o. `mask` is None or bool `[batch, n_steps]`; `noise` is
    None or what is added to the cells at each step, `[units, batch]`. Set `training` if a gradient
    will be needed; otherwise computing one costs a second pass.
    """
    if mask is None:
        first, shown = 0, None
    else:  # steps that are masked for the whole batch are not computed
        first, shown = tf.argmax(tf.reduce_any(mask, 0), output_type=tf.int32), tf.transpose(mask)

    @tf.custom_gradient  # type: ignore[untyped-decorator]
    def run(x: Any, kernel: Any) -> Any:
        states, last, *saved = _forward(x, kernel, first, shown, noise, save=training)

        def gradient(d_states: Any, d_last: Any) -> tuple[Any, Any]:
            again = () if training else _forward(x, kernel, first, shown, noise, save=True)
            gates, cells = again[2:] or saved
            return _backward(x, kernel, first, gates, cells, d_states, d_last)

        return (states, last), gradient

    states, last = run(x, kernel)
    return states, last


def _forward(
    x: Any, kernel: Any, first: Any, shown: Any, noise: Any, save: bool
) -> tuple[Any, Any, Any, Any]:
    """Return all states, the last state, and with `save` the gates and cells of each step.

    The states and the cells are `[n_steps, units, batch]`, the gates `[n_steps, 4 * units, batch]`.
    """
    n_steps, units = tf.shape(x)[0], kernel.shape[1] // 4
    transposed = tf.transpose(kernel)
    zeros = _zeros(x, units)
    # sigmoid(z) is tanh(z / 2) / 2 + 1 / 2: one function, and one kernel, for all gates.
    scale = tf.repeat([0.5, 0.5, 1.0, 0.5], units)[:, None]

    def step(t: Any, h: Any, c: Any, states: Any, gates: Any, cells: Any) -> Any:
        z = contract(transposed, tf.concat([h, x[t]], 0))
        if shown is not None:
            z = tf.where(shown[t], z, _SHUT)
        slot = t if save else t % 2
        # Written before they are read, so that XLA computes them in place. Two slots are enough if
        # nothing is saved; with one, XLA would optimise the array away and run slower.
        gates = gates.write(slot, tf.tanh(z * scale) * scale + (1 - scale))
        i, f, g, o = tf.split(gates.read(slot), 4)
        c = f * c + i * g
        if noise is not None:
            c += noise
        h = o * tf.tanh(c)
        return t + 1, h, c, states.write(t, h), gates, cells.write(slot, c)

    n_saved = n_steps if save else 2
    arrays = _array(x, n_steps, units), _array(x, n_saved, 4 * units), _array(x, n_saved, units)
    _, last, _, states, gates, cells = tf.while_loop(
        lambda t, *_: t < n_steps, step, (first, zeros, zeros, *arrays)
    )
    return states.stack(), last, gates.stack(), cells.stack()


def _backward(
    x: Any, kernel: Any, first: Any, gates: Any, cells: Any, d_states: Any, d_last: Any
) -> tuple[Any, Any]:
    """Return the gradients of `x` and `kernel`, given those of all states and of the last state."""
    n_steps, units = tf.shape(x)[0], kernel.shape[1] // 4

    def step(t: Any, d_h: Any, d_c: Any, tanh_c: Any, d_x: Any, d_kernel: Any) -> Any:
        i, f, g, o = tf.split(gates[t], 4)
        before = tf.maximum(t - 1, 0)
        c_before = tf.where(t > first, cells[before], 0.0)
        tanh_c_before = tf.tanh(c_before)
        h_before = gates[before][3 * units :] * tanh_c_before
        d_h += d_states[t]
        d_c += d_h * o * (1 - tanh_c**2)
        d_i = d_c * g * i * (1 - i)
        d_f = d_c * c_before * f * (1 - f)
        d_g = d_c * i * (1 - g**2)
        d_o = d_h * tanh_c * o * (1 - o)
        d_gates = tf.concat([d_i, d_f, d_g, d_o], 0)
        d_x = d_x.write(t, contract(kernel[units:], d_gates))
        d_kernel += contract(tf.concat([h_before, x[t]], 0), tf.transpose(d_gates))
        return t - 1, contract(kernel[:units], d_gates), d_c * f, tanh_c_before, d_x, d_kernel

    start = (n_steps - 1, d_last, _zeros(x, units), tf.tanh(cells[-1]))
    d_x = _array(x, n_steps, kernel.shape[0] - units)
    *_, d_x, d_kernel = tf.while_loop(
        lambda t, *_: t >= first, step, (*start, d_x, tf.zeros_like(kernel))
    )
    return d_x.stack(), d_kernel


def _zeros(x: Any, height: int) -> Any:
    return tf.zeros([height, tf.shape(x)[2]], x.dtype)


def _array(x: Any, length: Any, height: int) -> Any:
    """Return an array of `length` matrices `[height, batch]`."""
    return tf.TensorArray(
        x.dtype, length, element_shape=(height, x.shape[2]), clear_after_read=False
    )
