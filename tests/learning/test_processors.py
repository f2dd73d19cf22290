"""The same bytes on one core or several, and on other processors, which QEMU emulates."""

import pytest

from support.processor import QEMU, run

pytestmark = [pytest.mark.pipeline, pytest.mark.rest(minutes=2)]

# Trains, predicts, and prints an md5 of weights and probabilities.
FIT = """
import hashlib, sys
sys.path[:0] = ["stages", "tests"]
from support.params import data_params, model_params, train_params
from vanilla_lstm.learning.model import build_model, predict
from vanilla_lstm.task.sequences import generate
from vanilla_lstm.learning.training import fit
cell, per_step = sys.argv[1], sys.argv[2] == "per step"
batch_size, units, n_steps, epochs = map(int, sys.argv[3:])
n = max(1000, 2 * batch_size)
x, y = generate(n, 1, n_max=5, n_steps=n_steps, targets=[1], per_step=per_step)
model = build_model(data_params(per_step=per_step), model_params(cell=cell, units=units), seed=1)
recipe = train_params(batch_size=batch_size, epochs=epochs)
list(fit(model, x[: 2 * batch_size], y[: 2 * batch_size], recipe))
arrays = [*(v.numpy() for v in model.weights), predict(model, x, 1000)]
print(hashlib.md5(b"".join(a.tobytes() for a in arrays)).hexdigest())
"""

# Before TensorFlow counts the cores.
ONE_CORE = """
import os
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
"""

CASES = [
    ("lstm", "", "32", "25", "10", "3"),
    ("lstm", "per step", "300", "25", "10", "2"),
    ("lstm", "", "32", "150", "10", "2"),
    ("lstm", "", "16", "25", "300", "1"),
    ("simple_rnn", "per step", "150", "60", "10", "2"),
]


def test_same_bytes_on_one_core_and_on_more() -> None:
    """The number of cores changes no bit, not even where TensorFlow would use all of them."""
    large = ("lstm", "", "8192", "25", "10", "3")
    assert run(ONE_CORE + FIT, *large) == run(FIT, *large)


@pytest.mark.skipif(not QEMU, reason="needs qemu-x86_64 (Debian: qemu-user)")
@pytest.mark.parametrize("name", ["Haswell", "Skylake-Client", "EPYC-Rome", "EPYC-Milan"])
@pytest.mark.parametrize("case", CASES, ids=" ".join)
def test_same_bytes_on_another_processor(case: tuple[str, ...], name: str, slow: bool) -> None:
    """Training and prediction give the same bits there, for any cell, sizes and labels."""
    if not slow and (case, name) != (CASES[0], "Haswell"):
        pytest.skip("takes a minute for each case: `pytest --slow`")
    assert run(FIT, *case, on=name) == run(FIT, *case)
