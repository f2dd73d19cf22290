"""Matrix products are right, and no library chooses the order in which they are summed."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.clone import ROOT
from support.params import data_params, model_params, train_params
from support.small_training import compiled, contractions
from vanilla_lstm.learning.backend import keras, tf
from vanilla_lstm.learning.batches import batches
from vanilla_lstm.learning.model import CELLS, as_program, build_model
from vanilla_lstm.learning.products import LONGEST, product
from vanilla_lstm.learning.training import _Program
from vanilla_lstm.task.artifacts import DataSet
from vanilla_lstm.task.params import read_params
from vanilla_lstm.task.schema import Params

pytestmark = pytest.mark.pipeline


@given(
    m=st.integers(1, 5),
    length=st.one_of(st.integers(1, 3 * LONGEST), st.integers(8 * LONGEST, 9 * LONGEST)),
    n=st.integers(1, 5),
    known=st.booleans(),
    seed=st.integers(0, 99),
)
@settings(max_examples=10, deadline=None)
def test_product(m: int, length: int, n: int, known: bool, seed: int) -> None:
    """`product` and its gradient are right for any length, known in advance or not."""
    rng = np.random.default_rng(seed)
    a, b, d = (rng.normal(size=s).astype("float32") for s in [(m, length), (length, n), (m, n)])

    def value_and_gradients(a: Any, b: Any, d: Any) -> list[Any]:
        with tf.GradientTape() as tape:
            tape.watch([a, b])
            c = product(a, b)
            total = tf.reduce_sum(c * d)
        return [c, *tape.gradient(total, [a, b])]

    shapes = (a.shape, b.shape, d.shape) if known else [(None, None)] * 3
    specs = [tf.TensorSpec(shape, tf.float32) for shape in shapes]
    run = tf.function(value_and_gradients, input_signature=specs)
    expected = [a.astype(float) @ b, d.astype(float) @ b.T, a.T.astype(float) @ d]
    for ours, true in zip(run(a, b, d), expected, strict=True):
        np.testing.assert_allclose(ours, true, rtol=1e-4, atol=1e-4)


def programs(params: Params) -> list[str]:
    """Return the HLO of the training program and of the prediction program."""
    recipe = params.train
    dataset = DataSet.draw(params.data, params.train_data)
    padded = recipe.pads(dataset.own)
    model = build_model(params.data, params.model, recipe.seed, padded)
    program = _Program(model, recipe.learning_rate, recipe)
    n = recipe.n_training(len(dataset.x))
    data = [tf.constant(a) for a in (dataset.x[:n], dataset.y[:n], dataset.x[n:], dataset.y[n:])]
    order, rest = batches(np.arange(n), recipe.batch_size), np.arange(len(dataset.x) - n)
    lengths = np.full((1, len(order)), dataset.x.shape[1], np.int32)
    one_epoch = map(tf.constant, [order[None], lengths, batches(rest, len(rest)), 1])
    training = compiled(program.epochs, data, *one_epoch)
    digits = tf.constant(dataset.x[: params.evaluate.batch_size], tf.int64)
    return [training, compiled(as_program(model), digits)]


def large(cell: str, per_step: bool) -> Params:
    """Return params with which every sum whose length can grow is longer than a block."""
    return replace(
        read_params(ROOT / "params.yaml"),
        data=data_params(n_max=100, insert=2, per_step=per_step),
        model=model_params(cell=cell, units=150),
        train=train_params(batch_size=300),  # LONGEST is 128
    )


def longest(params: Params) -> int:
    """Return the length of the longest contraction of a training and its prediction."""
    lengths = [contractions(hlo) for hlo in programs(params)]
    assert all(lengths)
    return max(map(max, lengths))


def test_no_long_contraction() -> None:
    """No program of the main result has a sum long enough for a library to split."""
    assert longest(read_params(ROOT / "params.yaml")) <= LONGEST


@pytest.mark.rest
def test_no_long_contraction_elsewhere() -> None:
    """Nor has any program of a cell with many units, symbols, samples and labels."""
    for params in (large("lstm", per_step=True), large("simple_rnn", per_step=False)):
        assert longest(params) <= LONGEST


@pytest.mark.rest
def test_no_long_contraction_can_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    """The check finds the long contractions of Keras's own layer, and refuses what it cannot see.

    A convolution sums in an unknown order.
    """
    monkeypatch.setitem(CELLS, "lstm", keras.layers.LSTM)
    assert longest(large("lstm", per_step=True)) > LONGEST
    function = tf.function(
        lambda x: tf.nn.conv1d(x, tf.ones([3, 8, 8]), 1, "SAME"), jit_compile=True
    )
    with pytest.raises(ValueError, match=r"convolution\(|custom-call\("):
        contractions(compiled(function, tf.ones([2, 9, 8])))
