"""Training with `min_steps`: each batch learns only the first steps of its sequences."""

import numpy as np
import pytest

from support.hlo import compiled
from support.sections import data_params, model_params
from support.small_training import data, fit, recipe
from vanilla_lstm.learning import training
from vanilla_lstm.learning.backend import tf
from vanilla_lstm.learning.model import build_model
from vanilla_lstm.task.sequences import PAD

pytestmark = pytest.mark.pipeline


@pytest.mark.parametrize("per_step", [pytest.param(False, marks=pytest.mark.rest), True])
def test_beginnings(per_step: bool) -> None:
    """Learning the first three steps of a sequence equals learning a sequence of three steps."""
    x, y = data(45, [1], per_step=per_step)
    whole, cut = (
        build_model(data_params(per_step=per_step), model_params(units=8), seed=5, padded=True)
        for _ in range(2)
    )
    # Both are 3 steps long, and an epoch is one batch of all samples.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "batch_lengths", lambda n, *_: np.full(n, 3, np.int32))
        beginnings = fit(whole, x, y, recipe(5, batch_size=36, min_steps=2))
    alone = fit(cut, x[:, :3], y[:, :3] if per_step else y, recipe(5, batch_size=36))
    assert [row.loss for row in beginnings] == pytest.approx([row.loss for row in alone], rel=1e-5)
    for ours, theirs in zip(whole.weights, cut.weights, strict=True):
        np.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=1e-4, atol=1e-6)


def test_each_length_is_learned_by_one_program() -> None:
    """XLA compiles one program for all lengths."""
    x = tf.constant(data(2)[0])
    beginnings = tf.function(lambda n: training._beginnings(x, n, PAD), jit_compile=True)
    assert compiled(beginnings, tf.constant(2)) == compiled(beginnings, tf.constant(3))
