"""The phases of a training: when each ends, and which model it keeps for the next."""

import pytest

from support.small_training import N_STEPS, curriculum, data, fit, recipe, small_model, weights
from vanilla_lstm.learning import training
from vanilla_lstm.learning.evaluation import evaluate
from vanilla_lstm.learning.model import predict

pytestmark = pytest.mark.pipeline


def test_stop_at_accuracy() -> None:
    """A phase ends after two accurate epochs in a row, and the next one begins."""
    x, y = data(45)
    phases = recipe(4, 0.001, curriculum=curriculum(4, 5, 0.001), stop_at_accuracy=0.01)
    history = fit(small_model(), x, y, phases)
    assert [epoch.n_steps for epoch in history] == [4, 4, N_STEPS, N_STEPS]


def test_stop_needs_two_in_a_row() -> None:
    """One lucky epoch does not end the training."""
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
def test_speed_does_not_change_what_follows_an_early_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    """A phase does not depend on how many epochs were prepared for the phase before it."""
    x, y = data(45)
    phases = recipe(3, 0.001, curriculum=curriculum(4, 30, 0.001), stop_at_accuracy=0.01)
    made = []
    for seconds in (0, 1000):
        monkeypatch.setattr(training, "_CHUNK_SECONDS", seconds)
        model = small_model()
        history = fit(model, x, y, phases)
        made.append((history, weights(model)))
    assert made[0] == made[1]


def test_keep() -> None:
    """`keep: best` keeps the model with the lowest validation loss, not the last one."""
    x, y = data(45)
    model = small_model()
    history = fit(model, x, y, recipe(30, 0.1, keep="best"))
    losses = [epoch.val_loss for epoch in history]
    assert losses[-1] > min(losses) * 1.01  # otherwise the test proves nothing
    kept = evaluate(predict(model, x[36:], 9), y[36:]).loss
    assert kept == pytest.approx(min(losses), rel=1e-4)


@pytest.mark.rest
def test_curriculum() -> None:
    """A phase learns the first steps; the next starts with the model kept and a new optimizer."""
    x, y = data(45)
    alone, both = small_model(), small_model()
    first = fit(alone, x[:, :3], y, recipe(30, 0.1, keep="best"))
    standstill = recipe(2, 1e-12, curriculum=curriculum(3, 30, 0.1), keep="best")
    history = fit(both, x, y, standstill)
    assert history[:30] == first
    assert min(first, key=lambda epoch: epoch.val_loss) != first[-1]  # the best is not the last
    kept = evaluate(predict(alone, x[36:], 9), y[36:])
    assert history[30].n_steps == N_STEPS
    assert history[30].val_loss == pytest.approx(kept.loss, rel=1e-4)


@pytest.mark.rest
def test_curriculum_with_one_label_per_step() -> None:
    """With one label per step, a phase learns the labels of its steps only."""
    x, y = data(45, [1], per_step=True)
    models = [small_model(per_step=True) for _ in range(2)]
    prefix = fit(models[0], x[:, :3], y[:, :3], recipe(3))
    phase = fit(models[1], x, y, recipe(1, curriculum=curriculum(3, 3, 0.01)))
    assert phase[:3] == prefix
