"""The same bytes on other processors: QEMU emulates their instructions and cache sizes."""

import pytest

from support.processor import QEMU, run

pytestmark = [
    pytest.mark.pipeline,
    pytest.mark.rest,
    pytest.mark.skipif(not QEMU, reason="needs qemu-x86_64 (Debian: qemu-user)"),
]

# Trains, predicts, and prints an md5 of weights and probabilities.
FIT = """
import hashlib, sys
sys.path[:0] = ["stages", "tests"]
from support.sections import data_params, model_params, train_params
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

# Multiplies matrices on two threads.
MULTIPLY = """
import hashlib, sys
sys.path.insert(0, "stages")
import numpy as np
from vanilla_lstm.learning.backend import tf
tf.config.threading.set_intra_op_parallelism_threads(2)
rng = np.random.default_rng(0)
a, b = (rng.normal(size=size).astype("float32") for size in [(25, 100), (100, 1000)])
print(hashlib.md5(tf.function(tf.matmul, jit_compile=True)(a, b).numpy().tobytes()).hexdigest())
"""

CASES = [
    ("lstm", "", "32", "25", "10", "3"),
    ("lstm", "per step", "300", "25", "10", "2"),
    ("lstm", "", "512", "64", "10", "2"),
    ("lstm", "", "32", "150", "10", "2"),
    ("lstm", "", "16", "25", "300", "1"),
    ("simple_rnn", "per step", "150", "60", "10", "2"),
    ("simple_rnn", "", "150", "150", "10", "2"),
]


def test_same_bytes_on_another_processor() -> None:
    """Training and prediction give the same bits on this processor and on a Haswell."""
    assert run(FIT, *CASES[0], on="Haswell") == run(FIT, *CASES[0])


def test_same_bytes_can_fail(slow: bool) -> None:
    """A matrix product differs between processors if a library may split up its sums."""
    if not slow:
        pytest.skip("takes a minute to show that the test above can fail: `pytest --slow`")
    assert run(MULTIPLY, on="Haswell") != run(MULTIPLY, on="EPYC-Rome")


@pytest.mark.parametrize("name", ["Haswell", "Skylake-Client", "EPYC-Rome", "EPYC-Milan"])
@pytest.mark.parametrize("case", CASES, ids=" ".join)
def test_same_bytes_on_other_processors(case: tuple[str, ...], name: str, slow: bool) -> None:
    """The same holds for other processors, cells, batch sizes, units, labels and lengths."""
    if not slow:
        pytest.skip("takes a minute for each case: `pytest --slow`")
    assert run(FIT, *case, on=name) == run(FIT, *case)
