"""Matrix products are right, and no library chooses the order in which they are summed."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.clone import ROOT
from support.hlo import compiled, contractions
from support.sections import data_params, model_params, train_params
from vanilla_lstm.learning.backend import keras, tf
from vanilla_lstm.learning.batches import batches
from vanilla_lstm.learning.model import CELLS, as_program, build_model
from vanilla_lstm.learning.products import LONGEST, product
from vanilla_lstm.learning.training import _Program
from vanilla_lstm.task.artifacts import DataSet
from vanilla_lstm.task.params import read_params
from vanilla_lstm.task.schema import Params

pytestmark = pytest.mark.pipeline

COMMITTED = {path.parent.name: path for path in sorted(ROOT.glob("claims/*/params.yaml"))}
COMMITTED["main"] = ROOT / "params.yaml"
OTHERS = sorted(COMMITTED.keys() - {"main", "sequence-prediction"})


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


@pytest.mark.parametrize(
    "name",
    [
        "main",
        "sequence-prediction",  # the claim with one label per step
        *(pytest.param(name, marks=pytest.mark.rest) for name in OTHERS),
    ],
)
def test_no_long_contraction(name: str) -> None:
    """No program of a committed result has a sum long enough for a library to split."""
    params = read_params(COMMITTED[name])
    for hlo in programs(params):
        assert 0 < max(contractions(hlo)) <= LONGEST


def large(cell: str, per_step: bool) -> Params:
    """Return params with which every sum whose length can grow is longer than a block."""
    params = read_params(COMMITTED["main"])
    return replace(
        params,
        data=data_params(n_max=100, insert=2, per_step=per_step),
        model=model_params(cell=cell, units=150),
        train=train_params(batch_size=300),  # LONGEST is 128
    )


@pytest.mark.rest
@pytest.mark.parametrize(("cell", "per_step"), [("lstm", True), ("simple_rnn", False)])
def test_no_long_contraction_in_large_models(cell: str, per_step: bool) -> None:
    """The same holds for each cell with many units, symbols, samples and labels."""
    for hlo in programs(large(cell, per_step)):
        assert 0 < max(contractions(hlo)) <= LONGEST


def test_no_long_contraction_can_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    """The check finds the long contractions of Keras's own layer."""
    monkeypatch.setitem(CELLS, "lstm", keras.layers.LSTM)
    assert max(contractions(programs(large("lstm", per_step=True))[0])) > LONGEST


@pytest.mark.parametrize(
    ("transposed", "length"), [({}, 300), ({"transpose_a": True}, 300), ({"transpose_b": True}, 7)]
)
def test_contractions_are_found(transposed: dict[str, bool], length: int) -> None:
    """The length of a contraction is found whichever axes are summed over."""
    shapes = {"": [(5, 300), (300, 7)], "transpose_a": [(300, 5), (300, 7)]}
    shapes["transpose_b"] = [(300, 7), (5, 7)]
    a, b = (tf.ones(shape) for shape in shapes["".join(transposed)])
    function = tf.function(lambda a, b: tf.matmul(a, b, **transposed), jit_compile=True)
    assert contractions(compiled(function, a, b)) == [length]


def test_unknown_contractions_are_refused() -> None:
    """A convolution is refused, as it sums in an unknown order."""
    function = tf.function(
        lambda x: tf.nn.conv1d(x, tf.ones([3, 8, 8]), 1, "SAME"), jit_compile=True
    )
    with pytest.raises(ValueError, match=r"convolution\(|custom-call\("):
        contractions(compiled(function, tf.ones([2, 9, 8])))
