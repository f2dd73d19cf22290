"""Training equals Keras's own, batch by batch."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest

from support.params import train_params
from support.small_training import N_STEPS, SEED, data, fit, recipe, small_model
from vanilla_lstm.learning.backend import keras
from vanilla_lstm.learning.batches import shuffled_batches
from vanilla_lstm.learning.model import CELLS
from vanilla_lstm.task.sequences import NO_LABEL

pytestmark = pytest.mark.pipeline

KERAS_CELLS = {"lstm": keras.layers.LSTM, "simple_rnn": keras.layers.SimpleRNN}


class Case(NamedTuple):
    """The data, batches and model of a training to compare with Keras's."""

    n: int
    batch_size: int
    cell: str = "lstm"
    lags: list[int] | None = None
    clipnorm: float | None = None


def keras_epochs(case: Case, model: keras.Model, n_epochs: int) -> list[list[float]]:
    """Train with `train_on_batch` and validate with `test_on_batch`, on the same batches."""
    x, y = data(case.n, case.lags, per_step=case.lags is not None)
    first = max(case.lags) if case.lags else 0  # steps without a label: weight 0 in Keras
    digits = x.astype(int)
    labels = np.where(y == NO_LABEL, 0, y).astype(int)
    weight = None
    if case.lags:
        weight = np.ones(y.shape, np.float32) * N_STEPS / (N_STEPS - first)
        weight[:, :first] = 0

    def accuracy(true: Any, predicted: Any) -> Any:
        right = keras.ops.equal(keras.ops.argmax(predicted, -1), keras.ops.cast(true, "int64"))
        if case.lags:
            right = keras.ops.all(right[:, first:], -1)
        return keras.ops.cast(right, "float32")

    optimizer = keras.optimizers.Adam(0.01, clipnorm=case.clipnorm)
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=[accuracy])
    n = train_params().n_training(case.n)
    rows = []
    order = shuffled_batches(n, min(case.batch_size, n), [SEED, 0])

    def on(method: Callable[..., Any], part: Any) -> list[float]:
        sample_weight = None if weight is None else weight[part]
        return [float(v) for v in method(digits[part], labels[part], sample_weight)]

    for _ in range(n_epochs):
        parts = [batch[batch >= 0] for batch in next(order)]
        trained = [on(model.train_on_batch, part) for part in parts]
        mean = np.average(trained, axis=0, weights=[len(part) for part in parts])
        rows.append([*mean, *on(model.test_on_batch, slice(n, None))])
    return rows


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(Case(45, 8, lags=[2, 1], clipnorm=0.05), id="lags, clipped"),
        pytest.param(
            Case(45, 7, cell="simple_rnn", clipnorm=0.05),
            id="simple_rnn, clipped",
            marks=pytest.mark.rest,
        ),
    ],
)
def test_same_as_keras(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """With equal initial weights and batches, measures and trained weights equal Keras's."""
    per_step = case.lags is not None
    model = small_model(case.cell, per_step)
    with monkeypatch.context() as keras_own:
        for name, layer in KERAS_CELLS.items():
            keras_own.setitem(CELLS, name, layer)
        keras_own.setattr("vanilla_lstm.learning.model.Dense", keras.layers.Dense)
        reference = small_model(case.cell, per_step)
    for ours, theirs in zip(model.weights, reference.weights, strict=True):
        np.testing.assert_allclose(ours.numpy(), theirs.numpy(), atol=2e-6)
    reference.set_weights(model.get_weights())
    x, y = data(case.n, case.lags, per_step)
    options: dict[str, Any] = {"batch_size": case.batch_size, "clipnorm": case.clipnorm}
    history = fit(model, x, y, recipe(4, **options))
    expected = keras_epochs(case, reference, 4)
    np.testing.assert_allclose([row[2:] for row in history], expected, rtol=2e-5, atol=1e-6)
    for ours, theirs in zip(model.weights, reference.weights, strict=True):
        np.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=1e-4, atol=2e-6)
    # Otherwise the case would prove nothing about `clipnorm`.
    unclipped = fit(small_model(case.cell, per_step), x, y, recipe(4, batch_size=case.batch_size))
    assert unclipped[-1].loss != pytest.approx(history[-1].loss, rel=2e-4)


@pytest.mark.rest
def test_layers_with_state() -> None:
    """In a user's own model, dropout and batch normalization behave in training as in Keras."""
    x, y = data(40)
    models = []
    for rate in (0.0, 0.0, 0.5):
        keras.utils.set_random_seed(1)
        layers = [
            *small_model().layers[:-1],
            keras.layers.BatchNormalization(),
            keras.layers.Dropout(rate, seed=2),
            keras.layers.Dense(5, activation="softmax"),
        ]
        models.append(keras.Sequential([keras.Input((None,), dtype="int64"), *layers]))
    ours, reference, dropping = models
    history = fit(ours, x, y, recipe(4))
    expected = keras_epochs(Case(40, 8), reference, 4)
    np.testing.assert_allclose([row[2:] for row in history], expected, rtol=2e-4, atol=1e-5)
    for trained, keras_own in zip(ours.weights, reference.weights, strict=True):
        np.testing.assert_allclose(trained.numpy(), keras_own.numpy(), rtol=1e-3, atol=1e-5)
    dropped = fit(dropping, x, y, recipe(4))
    assert dropped[-1].loss > history[-1].loss * 1.01
