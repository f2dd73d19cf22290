"""Training gives the same bits on any number of cores, and validation has no effect on it."""

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from support.clone import ROOT, environment
from support.sections import train_params
from support.small_training import data, fit, recipe, small_model, weights
from vanilla_lstm.learning import training
from vanilla_lstm.learning.evaluation import evaluate, significant
from vanilla_lstm.learning.model import predict

pytestmark = pytest.mark.pipeline

# Trains, and prints an md5 of the weights.
ONE_FIT = """
import hashlib, sys
sys.path[:0] = ["stages", "tests"]
from support.sections import data_params, model_params, train_params
from vanilla_lstm.learning.model import build_model
from vanilla_lstm.task.sequences import generate
from vanilla_lstm.learning.training import fit
batch_size, units = map(int, sys.argv[1:])
x, y = generate(2 * batch_size, 1, n_max=5, n_steps=10, targets=[1])
model = build_model(data_params(), model_params(units=units), seed=1)
list(fit(model, x, y, train_params(batch_size=batch_size, epochs=3)))
print(hashlib.md5(b"".join(v.numpy().tobytes() for v in model.weights)).hexdigest())
"""


@pytest.mark.rest
def test_same_weights_on_one_core_and_on_more() -> None:
    """The number of cores changes no weight, not even where TensorFlow would use all of them."""
    made = [
        subprocess.run(
            [*prefix, sys.executable, "-c", ONE_FIT, "8192", "25"],
            cwd=ROOT,
            env=environment(),
            capture_output=True,
            check=True,
        ).stdout
        for prefix in ([], ["taskset", "-c", "0"])
    ]
    assert made[0] == made[1]


@pytest.mark.parametrize(("n", "split", "expected"), [(1000, 0.2, 800), (45, 0.2, 36), (7, 0.5, 3)])
def test_split(n: int, split: float, expected: int) -> None:
    """Training uses the first samples, as many as `model.fit` with this `validation_split`."""
    assert train_params(validation_split=split).n_training(n) == expected


def test_what_leaves_no_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither validation data nor the number of epochs in one program changes a bit."""
    x, y = data(45)
    plain = small_model()
    expected = fit(plain, x, y, recipe(9))
    sizes: list[int] = []
    run = training._Program.run

    def counted(*arguments: Any) -> Iterator[Any]:
        for measures in run(*arguments):
            sizes.append(len(measures))
            yield measures

    monkeypatch.setattr(training._Program, "run", counted)
    monkeypatch.setattr(training, "_CHUNK_EPOCHS", 5)
    monkeypatch.setattr(training, "_CHUNK_SECONDS", 0)
    single = small_model()
    assert fit(single, x, y, recipe(9)) == expected
    monkeypatch.setattr(training, "_CHUNK_SECONDS", 1e9)
    x[36:], y[36:] = 0, 0
    chunked = small_model()
    fit(chunked, x, y, recipe(9))
    assert sizes == [1] * 9 + [1, 5, 3]
    assert weights(single) == weights(chunked) == weights(plain)


def test_measures_are_those_of_evaluate() -> None:
    """The validation of the last epoch agrees with `evaluate`, with one label per step too."""
    x, y = data(45, [1, 0], per_step=True)
    model = small_model(per_step=True)
    last = fit(model, x, y, recipe(5, 0.05))[-1]
    result = evaluate(predict(model, x[36:], 9), y[36:])
    assert last.val_loss == pytest.approx(result.loss, rel=1e-4)
    assert last.val_accuracy == significant(result.accuracy)
