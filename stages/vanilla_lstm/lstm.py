"""Keras's LSTM layer, its recurrence written out for XLA.

It has the weights and the file of `keras.layers.LSTM` and, but for the order of sums, its numbers.
Differentiated by TensorFlow, a step of that layer becomes some forty small kernels, and rows of 25
units fill no vector register. Here samples are the last axis, and the gradient is written by hand
(Graves 2012, "Supervised Sequence Labelling with Recurrent Neural Networks", section 4.6).
"""

from collections.abc import Callable
from typing import Any

from vanilla_lstm.backend import keras, tf

_SHUT = -1e9  # what the gates are given at a masked step: they let nothing in and nothing out


@keras.saving.register_keras_serializable("vanilla_lstm")
class LSTM(keras.layers.LSTM):
    """`keras.layers.LSTM` with its default activations.

    A mask may hide nothing but the first steps of a sequence.
    """

    def call(self, sequences: Any, initial_state: Any = None, mask: Any = None) -> Any:
        """Return the last state `[batch, units]`, or all of them with `return_sequences`."""
        if initial_state is not None:
            raise NotImplementedError("the state begins with zeros")
        x = tf.transpose(sequences, [1, 0, 2])
        x = tf.concat([x, tf.ones_like(x[:, :, :1])], 2)
        n_steps, batch, n_features = tf.unstack(tf.shape(x))
        # The bias as one more row of the kernel, and a single product for all steps.
        kernel = tf.concat([self.cell.kernel.value, self.cell.bias.value[None]], 0)
        inputs = tf.matmul(tf.reshape(x, [n_steps * batch, n_features]), kernel)
        inputs = tf.reshape(inputs, [n_steps, batch, 4 * self.units])
        inputs = tf.transpose(inputs, [0, 2, 1])
        if mask is not None:
            inputs = tf.where(tf.transpose(mask)[:, None], inputs, _SHUT)
        states, last = _recurrence(inputs, self.cell.recurrent_kernel.value)
        return tf.transpose(states, [2, 0, 1]) if self.return_sequences else tf.transpose(last)


@tf.custom_gradient  # type: ignore[untyped-decorator]
def _recurrence(inputs: Any, kernel: Any) -> tuple[tuple[Any, Any], Callable[[Any, Any], Any]]:
    """Return all states `[n_steps, units, batch]`, and the last one.

    `inputs` are what the gates are given beside the state, `[n_steps, 4 * units, batch]` in Keras's
    order i, f, c, o; `kernel` is the recurrent one, `[units, 4 * units]`.
    """
    n_steps, units = tf.shape(inputs)[0], kernel.shape[0]
    transposed = tf.transpose(kernel)
    zeros = tf.zeros_like(inputs[0, :units])

    def arrays(n: int, height: int) -> list[Any]:
        shape = (height, inputs.shape[2])
        return [tf.TensorArray(inputs.dtype, n_steps, element_shape=shape) for _ in range(n)]

    def forward(t: Any, h: Any, c_before: Any, *saved: Any) -> Any:
        i, f, g, o = tf.split(tf.matmul(transposed, h) + inputs[t], 4)
        i, f, g, o = tf.sigmoid(i), tf.sigmoid(f), tf.tanh(g), tf.sigmoid(o)
        c = f * c_before + i * g
        h = o * tf.tanh(c)
        values = (h, c_before, i, f, g, o)
        return t + 1, h, c, *(a.write(t, v) for a, v in zip(saved, values, strict=True))

    _, last, _, *written = tf.while_loop(
        lambda t, *_: t < n_steps, forward, (0, zeros, zeros, *arrays(6, units))
    )
    saved = [array.stack() for array in written]
    states = saved[0]

    def gradient(d_states: Any, d_last: Any) -> tuple[Any, Any]:
        def backward(t: Any, d_h: Any, d_c: Any, d_inputs: Any) -> Any:
            c_before, i, f, g, o = (values[t] for values in saved[1:])
            tanh_c = tf.tanh(f * c_before + i * g)
            d_h += d_states[t]
            d_c += d_h * o * (1 - tanh_c**2)
            d_i = d_c * g * i * (1 - i)
            d_f = d_c * c_before * f * (1 - f)
            d_g = d_c * i * (1 - g**2)
            d_o = d_h * tanh_c * o * (1 - o)
            d_gates = tf.concat([d_i, d_f, d_g, d_o], 0)
            return t - 1, tf.matmul(kernel, d_gates), d_c * f, d_inputs.write(t, d_gates)

        *_, written = tf.while_loop(
            lambda t, *_: t >= 0, backward, (n_steps - 1, d_last, zeros, *arrays(1, 4 * units))
        )
        d_inputs = written.stack()
        d_kernel = tf.matmul(_rows(states[:-1]), _rows(d_inputs[1:]), transpose_a=True)
        return d_inputs, d_kernel

    return (states, last), gradient


def _rows(values: Any) -> Any:
    """Return `[n_steps, n, batch]` as `[n_steps * batch, n]`."""
    return tf.reshape(tf.transpose(values, [0, 2, 1]), [-1, values.shape[1]])
