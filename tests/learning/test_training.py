"""Training: its phases, the model that each keeps, and what has no effect on a bit of it."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from support.params import data_params, model_params, train_params
from support.small_training import N_STEPS, curriculum, data, fit, recipe, small_model, weights
from vanilla_lstm.learning import training
from vanilla_lstm.learning.evaluation import evaluate, significant
from vanilla_lstm.learning.model import build_model, predict

pytestmark = pytest.mark.pipeline


def test_split() -> None:
    """Training uses the first samples, as many as `model.fit` with this `validation_split`."""
    for n, split, expected in [(1000, 0.2, 800), (45, 0.2, 36), (7, 0.5, 3)]:
        assert train_params(validation_split=split).n_training(n) == expected


def test_what_leaves_no_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither validation data nor the number of epochs in one program changes a bit."""
    x, y = data(45)
    sizes: list[int] = []
    run = training._Program.run

    def counted(*arguments: Any) -> Iterator[Any]:
        for measures in run(*arguments):
            sizes.append(len(measures))
            yield measures

    monkeypatch.setattr(training._Program, "run", counted)
    monkeypatch.setattr(training, "_CHUNK_EPOCHS", 5)
    monkeypatch.setattr(training, "_CHUNK_SECONDS", 0)
    single, chunked = small_model(), small_model()
    one_by_one = fit(single, x, y, recipe(9))
    monkeypatch.setattr(training, "_CHUNK_SECONDS", 1e9)
    x[36:], y[36:] = 0, 0
    together = fit(chunked, x, y, recipe(9))
    assert sizes == [1] * 9 + [1, 5, 3]
    assert [row[:4] for row in together] == [row[:4] for row in one_by_one]
    assert weights(single) == weights(chunked)


def test_stop_needs_two_in_a_row() -> None:
    """Two accurate epochs in a row end the training; one lucky epoch does not."""
    x, y = data(45)
    plain = fit(small_model(), x, y, recipe(40))
    accuracies = [epoch.val_accuracy for epoch in plain]
    for threshold in sorted(set(accuracies)):
        reached = [a >= threshold for a in accuracies]
        pairs = [i + 2 for i in range(39) if reached[i] and reached[i + 1]]
        if pairs and reached.index(True) + 2 < pairs[0]:
            break
    else:
        pytest.fail("no threshold is first reached by one epoch alone")
    stopped = fit(small_model(), x, y, recipe(40, stop_at_accuracy=threshold))
    assert stopped == plain[: pairs[0]]


@pytest.mark.rest
def test_what_follows_an_early_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    """The next phase begins, however many epochs were prepared for the phase before it."""
    x, y = data(45)
    phases = recipe(3, 0.001, curriculum=curriculum(4, 30, 0.001), stop_at_accuracy=0.01)
    made = []
    for seconds in (0, 1000):
        monkeypatch.setattr(training, "_CHUNK_SECONDS", seconds)
        model = small_model()
        history = fit(model, x, y, phases)
        assert [epoch.n_steps for epoch in history] == [4, 4, N_STEPS, N_STEPS]
        made.append((history, weights(model)))
    assert made[0] == made[1]


@pytest.mark.rest
def test_curriculum() -> None:
    """A phase learns the first steps and labels; the next starts with its best model.

    Validation measures are those of `evaluate`.
    """
    x, y = data(45, [1], per_step=True)
    alone, both = small_model(per_step=True), small_model(per_step=True)
    first = fit(alone, x[:, :3], y[:, :3], recipe(30, 0.1, keep="best"))
    losses = [epoch.val_loss for epoch in first]
    assert losses[-1] > min(losses) * 1.01  # otherwise the test proves nothing
    standstill = recipe(1, 1e-12, curriculum=curriculum(3, 30, 0.1), keep="best")
    *phase, last = fit(both, x, y, standstill)
    assert phase == first
    assert last.n_steps == N_STEPS
    best = evaluate(predict(alone, x[36:, :3], 9), y[36:, :3])
    assert best.loss == pytest.approx(min(losses), rel=1e-4)
    kept = evaluate(predict(alone, x[36:], 9), y[36:])
    assert last.val_loss == pytest.approx(kept.loss, rel=1e-4)
    assert last.val_accuracy == significant(kept.accuracy)


@pytest.mark.rest
def test_beginnings(monkeypatch: pytest.MonkeyPatch) -> None:
    """With `min_steps`, learning the first three steps equals learning sequences of three steps."""
    x, y = data(45, [1], per_step=True)
    whole, cut = (
        build_model(data_params(per_step=True), model_params(units=8), seed=5, padded=True)
        for _ in range(2)
    )
    # Both are 3 steps long, and an epoch is one batch of all samples.
    monkeypatch.setattr(training, "batch_lengths", lambda n, *_: np.full(n, 3, np.int32))
    beginnings = fit(whole, x, y, recipe(5, batch_size=36, min_steps=2))
    monkeypatch.undo()
    alone = fit(cut, x[:, :3], y[:, :3], recipe(5, batch_size=36))
    assert [row.loss for row in beginnings] == pytest.approx([row.loss for row in alone], rel=1e-5)
    for ours, theirs in zip(whole.weights, cut.weights, strict=True):
        np.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=1e-4, atol=1e-6)
