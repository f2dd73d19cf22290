"""Training: the mathematics of `model.fit`, executed as a few large XLA programs.

`model.fit` launches a small program for each batch and spends most of its time between them. Here
one `tf.function(jit_compile=True)` loops over epochs and batches, and control returns to Python
only between chunks of epochs.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import count
from typing import Any

import numpy as np
import numpy.typing as npt

from vanilla_lstm.learning.backend import keras, tf
from vanilla_lstm.learning.batches import Indices, batch_lengths, batches, shuffled_batches
from vanilla_lstm.learning.evaluation import Epoch, significant
from vanilla_lstm.task.schema import PhaseParams, TrainParams
from vanilla_lstm.task.sequences import NO_LABEL, PAD, UInt8Array

PATIENCE = 2  # epochs in a row that must reach `stop_at_accuracy`
_CHUNK_EPOCHS = 25
_CHUNK_SECONDS = 0.5  # between returns to Python, for progress, curves and signals
_CHUNK_INDICES = 1 << 22  # bounds the memory of a chunk's batches
_VALIDATION_BATCH = 1024
_N_MEASURES = 4  # loss, accuracy, val_loss, val_accuracy


def fit(model: keras.Model, x: UInt8Array, y: UInt8Array, params: TrainParams) -> Iterator[Epoch]:
    """Train `model` in place on digits `[n_samples, n_steps]` and labels, and yield each epoch.

    It trains while its epochs are taken, and the model is trained when the last one has been.

    The phases of the curriculum come first, then one on whole sequences. Each phase has a new Adam
    optimizer with Keras's defaults and its own learning rate. It starts from the weights that the
    previous phase kept: those of its last epoch, or of the one with the lowest validation loss.
    With `stop_at_accuracy` a phase ends once two epochs in a row reach that validation accuracy.
    With `min_steps` about half of the batches learn only beginnings (`batch_lengths`).
    """
    n = params.n_training(len(x))
    whole = PhaseParams(
        n_steps=x.shape[1], epochs=params.epochs, learning_rate=params.learning_rate
    )
    numbers = count(1)
    for i, phase in enumerate([*params.curriculum, whole]):
        # Separate streams per phase: how far the previous phase drew ahead depends on the machine.
        shuffled = shuffled_batches(n, min(params.batch_size, n), [params.seed, i])
        lengths = np.random.default_rng([params.seed, i, 1])
        x_phase = x[:, : phase.n_steps]
        y_phase = y[:, : phase.n_steps] if y.ndim == 2 else y
        data = [tf.constant(part) for part in (x_phase[:n], y_phase[:n], x_phase[n:], y_phase[n:])]
        program = _Program(model, phase.learning_rate, params)
        for epochs in program.run(data, shuffled, lengths, phase.epochs):
            for measures in epochs:
                yield Epoch(next(numbers), phase.n_steps, *map(significant, measures))
        program.give_weights()


class _Program:
    """A model and Adam, compiled to train and validate several epochs per call.

    During training, all weights are one vector: one update takes three kernels; five variables
    would take fifteen.
    """

    def __init__(self, model: keras.Model, learning_rate: float, params: TrainParams) -> None:
        self.model = model
        self.params = params
        self.weights = keras.Variable(_joined(model.trainable_variables))
        self.optimizer = keras.optimizers.Adam(learning_rate)
        self.optimizer.build([self.weights])
        self.best_loss = tf.Variable(np.inf, dtype=tf.float64)
        self.best_weights = tf.Variable(self.weights.value)
        self.successes = tf.Variable(0)  # epochs in a row that reached stop_at_accuracy
        self.epochs = tf.function(self._epochs, jit_compile=True, autograph=False)

    def run(
        self, data: Any, shuffled: Iterator[Indices], rng: np.random.Generator, epochs: int
    ) -> Iterator[npt.NDArray[np.float64]]:
        """Yield the measures `[n, 4]` of each chunk of epochs."""
        n_steps, n_validation = data[0].shape[1], len(data[2])
        validation = batches(
            np.arange(n_validation, dtype=np.int32), min(n_validation, _VALIDATION_BATCH)
        )
        first = next(shuffled)
        n_epochs = max(1, min(_CHUNK_EPOCHS, _CHUNK_INDICES // first.size))
        chunk = np.zeros((n_epochs, *first.shape), np.int32)
        lengths = np.zeros(chunk.shape[:2], np.int32)
        chunk[0], size = first, 1  # a short first chunk, timed to choose the size of the others
        del first  # with millions of samples it is large
        draw = partial(batch_lengths, chunk.shape[1], self.params.min_steps, n_steps, rng)
        lengths[0] = draw()
        while epochs:
            started = time.perf_counter()
            done, measures = self.epochs(data, chunk, lengths, validation, tf.constant(size))
            measured = measures.numpy()[: int(done)]
            seconds = (time.perf_counter() - started) / size
            yield measured
            epochs -= size
            if int(self.successes) >= PATIENCE:
                return
            size = min(len(chunk), epochs, max(1, int(_CHUNK_SECONDS / seconds)))
            for i in range(size):
                chunk[i], lengths[i] = next(shuffled), draw()

    def give_weights(self) -> None:
        """Give the model its last weights, or those with the lowest validation loss."""
        weights = self.weights if self.params.keep == "last" else self.best_weights
        for variable, value in zip(
            self.model.trainable_variables, self._parts(weights), strict=True
        ):
            variable.assign(value)

    def _epochs(self, data: Any, chunk: Any, lengths: Any, validation: Any, size: Any) -> Any:
        """The compiled program: up to `size` epochs over the batches of `chunk`."""
        x, y, x_val, y_val = data

        def train_and_validate(epoch: Any, measures: Any) -> Any:
            def train(x: Any, y: Any, i: Any) -> Any:
                if self.params.min_steps is not None:
                    x = _beginnings(x, lengths[epoch, i], PAD)
                    y = _beginnings(y, lengths[epoch, i], NO_LABEL) if y.shape.rank == 2 else y
                return self._train_batch(x, y)

            loss, accuracy = self._over_batches(train, x, y, chunk[epoch])
            val_loss, val_accuracy = self._over_batches(
                lambda x, y, _: self._batch_sums(x, y), x_val, y_val, validation
            )
            better = val_loss < self.best_loss
            self.best_loss.assign(tf.where(better, val_loss, self.best_loss))
            self.best_weights.assign(tf.where(better, self.weights.value, self.best_weights))
            if self.params.stop_at_accuracy is not None:
                success = val_accuracy >= self.params.stop_at_accuracy
                self.successes.assign(tf.where(success, self.successes + 1, 0))
            row = tf.stack([loss, accuracy, val_loss, val_accuracy])
            return epoch + 1, tf.tensor_scatter_nd_update(measures, [[epoch]], [row])

        return tf.while_loop(
            lambda epoch, _: (epoch < size) & (self.successes < PATIENCE),
            train_and_validate,
            (0, tf.zeros((chunk.shape[0], _N_MEASURES), tf.float64)),
        )

    def _over_batches(self, process: Callable[..., Any], x: Any, y: Any, batches: Any) -> Any:
        """Return loss and accuracy, averaged over the samples of all batches."""

        def add_batch(i: Any, *totals: Any) -> Any:
            indices = batches[i]
            used = indices >= 0  # the last batch is padded with -1
            x_batch = tf.gather(x, tf.maximum(indices, 0))
            y_batch = tf.gather(y, tf.maximum(indices, 0))
            y_batch = tf.where(used if y.shape.rank == 1 else used[:, None], y_batch, NO_LABEL)
            sums = process(x_batch, y_batch, i)
            return i + 1, *(t + tf.cast(s, t.dtype) for t, s in zip(totals, sums, strict=True))

        zero = tf.constant(0.0, tf.float64)
        _, loss, n_correct, n = tf.while_loop(
            lambda i, *_: i < batches.shape[0], add_batch, (0, zero, zero, zero)
        )
        return loss / n, n_correct / n

    def _train_batch(self, x: Any, y: Any) -> Any:
        with tf.GradientTape() as tape:
            loss, n_correct, n = self._batch_sums(x, y, training=True)
            mean = loss / n  # over actual samples, not the padding of the last batch
        gradient = tape.gradient(mean, self.weights)
        if self.params.clipnorm is not None:  # variable by variable, as in Keras
            parts = self._parts(gradient)
            gradient = _joined([tf.clip_by_norm(part, self.params.clipnorm) for part in parts])
        self.optimizer.apply([gradient], [self.weights])
        return loss, n_correct, n

    def _parts(self, vector: Any) -> list[Any]:
        """Cut a vector of all weights, or of all gradients, into one tensor per variable."""
        shapes = [variable.shape for variable in self.model.trainable_variables]
        parts = tf.split(vector, [math.prod(shape) for shape in shapes])
        return [tf.reshape(part, shape) for part, shape in zip(parts, shapes, strict=True)]

    def _batch_sums(self, x: Any, y: Any, training: bool = False) -> Any:
        """Return the sum of the samples' losses, the number correct, and the number of samples."""
        variables = self.model.non_trainable_variables  # noise seeds, normalisation averages
        before = [variable.value for variable in variables]
        weights = self._parts(self.weights.value)
        probabilities, after = self.model.stateless_call(
            weights, before, tf.cast(x, tf.int64), training=training
        )
        for variable, old, new in zip(variables, before, after, strict=True):
            if new is not old:
                variable.assign(new)
        labelled = y != NO_LABEL
        digits = tf.cast(tf.where(labelled, y, 0), tf.int32)
        one_hot = tf.one_hot(digits, probabilities.shape[-1])
        losses = keras.losses.categorical_crossentropy(one_hot, probabilities)
        losses = tf.where(labelled, losses, 0.0)
        right = (tf.argmax(probabilities, -1, tf.int32) == digits) | ~labelled
        if y.shape.rank == 2:  # one label per step: the loss is the mean over labelled steps
            n_labels = tf.reduce_sum(tf.cast(labelled, tf.float32), 1)
            losses = tf.reduce_sum(losses, 1) / tf.maximum(n_labels, 1.0)
            right = tf.reduce_all(right, 1)
            labelled = tf.reduce_any(labelled, 1)
        count = tf.cast(labelled, tf.float32)
        return (
            tf.reduce_sum(losses),
            tf.reduce_sum(tf.cast(right, tf.float32) * count),
            tf.reduce_sum(count),
        )


def _beginnings(values: Any, n_steps: Any, padding: int) -> Any:
    """Return the first `n_steps` of sequences `[batch, all]`, padded on the left to that shape."""
    # Not `tf.slice`: XLA would compile the whole program again for each value of `n_steps`.
    n_padded = values.shape[1] - n_steps
    moved = tf.roll(values, n_padded, axis=1)
    return tf.where(tf.range(values.shape[1]) < n_padded, tf.constant(padding, values.dtype), moved)


def _joined(tensors: Sequence[Any]) -> Any:
    """Return all values as one vector."""
    return tf.concat([tf.reshape(tensor, [-1]) for tensor in tensors], 0)
