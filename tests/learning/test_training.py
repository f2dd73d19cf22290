"""Training, compared with Keras's own, batch by batch."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clone import ROOT, environment
from hlo import compiled
from sections import data_params, model_params, train_params
from vanilla_lstm.learning import training
from vanilla_lstm.learning.backend import keras, tf
from vanilla_lstm.learning.batches import batch_lengths, shuffled_batches
from vanilla_lstm.learning.evaluation import Epoch, evaluate, significant
from vanilla_lstm.learning.model import CELLS, build_model, predict
from vanilla_lstm.task.schema import PhaseParams, TrainParams
from vanilla_lstm.task.sequences import NO_LABEL, PAD, UInt8Array, generate

pytestmark = pytest.mark.pipeline

KERAS_CELLS = {
    "lstm": keras.layers.LSTM,
    "simple_rnn": keras.layers.SimpleRNN,
}
N_STEPS = 6
SEED = 3


def small_model(cell: Any = "lstm", per_step: bool = False) -> keras.Model:
    return build_model(data_params(per_step=per_step), model_params(cell=cell, units=8), seed=5)


def data(
    n: int, targets: list[int] | None = None, per_step: bool = False
) -> tuple[UInt8Array, UInt8Array]:
    return generate(n, 11, n_max=5, n_steps=N_STEPS, targets=targets or [1], per_step=per_step)


def recipe(epochs: int, learning_rate: float = 0.01, **values: Any) -> TrainParams:
    small = {"batch_size": 8, "seed": SEED, "epochs": epochs, "learning_rate": learning_rate}
    return train_params(**small | values)


def fit(model: keras.Model, x: UInt8Array, y: UInt8Array, params: TrainParams) -> list[Epoch]:
    """Take all epochs of a training."""
    return [*training.fit(model, x, y, params)]


def curriculum(n_steps: int, epochs: int, learning_rate: float) -> tuple[PhaseParams, ...]:
    return (PhaseParams(n_steps=n_steps, epochs=epochs, learning_rate=learning_rate),)


def weights(model: keras.Model) -> bytes:
    return b"".join(w.numpy().tobytes() for w in model.weights)


ONE_FIT = """
import hashlib, sys
sys.path[:0] = ["stages", "tests"]
from sections import data_params, model_params, train_params
from vanilla_lstm.learning.model import build_model
from vanilla_lstm.task.sequences import generate
from vanilla_lstm.learning.training import fit, set_threads
batch_size, units = map(int, sys.argv[1:])
x, y = generate(2 * batch_size, 1, n_max=5, n_steps=10, targets=[1])
set_threads(batch_size, units)
model = build_model(data_params(), model_params(units=units), seed=1)
list(fit(model, x, y, train_params(batch_size=batch_size, epochs=3)))
print(hashlib.md5(b"".join(v.numpy().tobytes() for v in model.weights)).hexdigest())
"""


@pytest.mark.parametrize("size", [("32", "25"), ("8192", "25"), ("512", "64")])
def test_same_weights_on_one_core_and_on_more(size: tuple[str, str]) -> None:
    """The number of cores changes no weight, even if TensorFlow would use all of them."""
    made = [
        subprocess.run(
            [*prefix, sys.executable, "-c", ONE_FIT, *size],
            cwd=ROOT,
            env=environment(),
            capture_output=True,
            check=True,
        ).stdout
        for prefix in ([], ["taskset", "-c", "0"])
    ]
    assert made[0] == made[1]


@given(n=st.integers(1, 100), batch_size=st.integers(1, 100), seed=st.integers(0, 9))
def test_batches(n: int, batch_size: int, seed: int) -> None:
    """An epoch holds each sample once, in full batches; only the last may end in padding."""
    epochs = shuffled_batches(n, batch_size, [seed])
    for epoch in (next(epochs), next(epochs)):
        assert epoch.shape == (-(-n // batch_size), batch_size)
        assert sorted(epoch.ravel()[:n]) == list(range(n))
        assert (epoch.ravel()[n:] == -1).all()


def test_each_epoch_has_its_order() -> None:
    """Orders differ between epochs and between seeds; the same seed gives the same orders."""
    first, second = (shuffled_batches(50, 8, seed=[1]) for _ in range(2))
    other = shuffled_batches(50, 8, seed=[2])
    orders = [next(first).tolist() for _ in range(3)]
    assert orders == [next(second).tolist() for _ in range(3)]
    assert orders[0] != orders[1] != orders[2]
    assert orders[0] != next(other).tolist()


@pytest.mark.parametrize(("n", "split", "expected"), [(1000, 0.2, 800), (45, 0.2, 36), (7, 0.5, 3)])
def test_split(n: int, split: float, expected: int) -> None:
    """Training uses the first samples, as many as `model.fit` does."""
    assert train_params(validation_split=split).n_training(n) == expected


class Case:
    """A training to compare with Keras's."""

    def __init__(
        self,
        n: int,
        batch_size: int,
        cell: str = "lstm",
        lags: list[int] | None = None,
        clipnorm: float | None = None,
    ) -> None:
        self.n, self.batch_size, self.cell = n, batch_size, cell
        self.lags, self.clipnorm = lags, clipnorm


def keras_epochs(case: Case, model: keras.Model, n_epochs: int) -> list[list[float]]:
    """Train with `train_on_batch` and validate with `test_on_batch`, in the order of `fit`."""
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
        pytest.param(Case(40, 8), id="full batches"),
        pytest.param(Case(45, 8), id="remainder"),
        pytest.param(Case(10, 32), id="batch larger than the data"),
        pytest.param(Case(45, 7, cell="simple_rnn", clipnorm=0.05), id="simple_rnn, clipped"),
        pytest.param(Case(45, 16, cell="simple_rnn", lags=[0]), id="simple_rnn, a label a step"),
        pytest.param(Case(45, 8, lags=[2, 1], clipnorm=0.05), id="lags, clipped"),
    ],
)
def test_same_as_keras(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """From equal weights and batches, losses, accuracies and trained weights equal Keras's."""
    per_step = case.lags is not None
    model = small_model(case.cell, per_step)
    with monkeypatch.context() as keras_own:
        for name, layer in KERAS_CELLS.items():
            keras_own.setitem(CELLS, name, layer)
        keras_own.setattr("vanilla_lstm.learning.model.Dense", keras.layers.Dense)
        reference = small_model(case.cell, per_step)
    assert weights(model) == weights(reference)
    x, y = data(case.n, case.lags, per_step)
    options: dict[str, Any] = {"batch_size": case.batch_size, "clipnorm": case.clipnorm}
    history = fit(model, x, y, recipe(4, **options))
    expected = keras_epochs(case, reference, 4)
    np.testing.assert_allclose([row[2:] for row in history], expected, rtol=2e-5, atol=1e-6)
    for ours, theirs in zip(model.weights, reference.weights, strict=True):
        np.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=1e-4, atol=2e-6)


def test_layers_with_state() -> None:
    """A user's own model may have layers that behave differently in training, as in Keras."""
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


def test_clipping_changes_the_training() -> None:
    """Clipping matters in the cases above: their gradients are longer than 0.05."""
    x, y = data(45)
    losses = []
    for clipnorm in (None, 1e-9):  # below Adam's epsilon, so that it has an effect
        model = small_model()
        history = fit(model, x, y, recipe(2, clipnorm=clipnorm))
        losses.append(history[-1].loss)
    assert losses[1] > losses[0] * 1.001


def test_validation_leaves_no_trace() -> None:
    """The validation data has no effect on the weights."""
    x, y = data(45)
    first, second = small_model(), small_model()
    fit(first, x, y, recipe(3))
    x[36:], y[36:] = 0, 0
    fit(second, x, y, recipe(3))
    assert weights(first) == weights(second)


@pytest.mark.parametrize("seconds", [0.0, 1e9])
def test_chunks_do_not_show(seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """The number of epochs in a program, set by timing, changes no bit and loses no epoch."""
    x, y = data(45)
    plain, chunked = small_model(), small_model()
    expected = fit(plain, x, y, recipe(9))
    monkeypatch.setattr(training, "_CHUNK_SECONDS", seconds)
    monkeypatch.setattr(training, "_CHUNK_EPOCHS", 5)
    sizes: list[int] = []
    run = training._Program.run

    def counted(*arguments: Any) -> Iterator[Any]:
        for measures in run(*arguments):
            sizes.append(len(measures))
            yield measures

    monkeypatch.setattr(training._Program, "run", counted)
    assert fit(chunked, x, y, recipe(9)) == expected
    assert sizes == ([1] * 9 if seconds == 0 else [1, 5, 3])
    assert weights(chunked) == weights(plain)


def test_speed_does_not_change_what_follows_an_early_stop(monkeypatch: pytest.MonkeyPatch) -> None:
    """A phase is the same however many epochs were prepared for the previous one."""
    x, y = data(45)
    phases = recipe(3, 0.001, curriculum=curriculum(4, 30, 0.001), stop_at_accuracy=0.01)
    made = []
    for seconds in (0, 1000):
        monkeypatch.setattr(training, "_CHUNK_SECONDS", seconds)
        model = small_model()
        history = fit(model, x, y, phases)
        made.append((history, weights(model)))
    assert made[0] == made[1]


@pytest.mark.parametrize(("accuracy", "n_epochs"), [(0.01, [2, 2]), (1.0, [5, 4])])
def test_stop_at_accuracy(accuracy: float, n_epochs: list[int]) -> None:
    """A phase ends after two accurate epochs in a row, or else after all of its epochs."""
    x, y = data(45)
    phases = recipe(4, 0.001, curriculum=curriculum(4, 5, 0.001), stop_at_accuracy=accuracy)
    history = fit(small_model(), x, y, phases)
    assert [sum(epoch.n_steps == n for epoch in history) for n in (4, N_STEPS)] == n_epochs


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


@pytest.mark.parametrize("keep", ["best", "last"])
def test_keep(keep: Any) -> None:
    """The model kept is the one with the lowest validation loss, or the last one."""
    x, y = data(45)
    model = small_model()
    history = fit(model, x, y, recipe(30, 0.1, keep=keep))
    losses = [epoch.val_loss for epoch in history]
    assert losses[-1] > min(losses) * 1.01  # otherwise the test proves nothing
    kept = evaluate(predict(model, x[36:], 9), y[36:]).loss
    assert kept == pytest.approx(min(losses) if keep == "best" else losses[-1], rel=1e-4)


def test_curriculum() -> None:
    """A phase trains on the first steps; the next starts from the model it kept and a new Adam."""
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


@given(
    least=st.integers(1, 50), longer=st.integers(0, 2000), n=st.integers(1, 99), seed=st.integers()
)
def test_batch_lengths(least: int, longer: int, n: int, seed: int) -> None:
    """Lengths are integers within their bounds; without a minimum, all are the maximum."""
    n_steps, seeds = least + longer, [abs(seed)]
    lengths = batch_lengths(n, least, n_steps, np.random.default_rng(seeds))
    assert lengths.dtype == np.int32
    assert lengths.shape == (n,)
    assert least <= lengths.min() <= lengths.max() <= n_steps
    assert (batch_lengths(n, None, n_steps, np.random.default_rng(seeds)) == n_steps).all()


def test_batch_lengths_are_log_uniform() -> None:
    """Half of the batches learn all steps; of the others, as many learn 2 to 15 as 16 to 127."""
    lengths = batch_lengths(100_000, 2, 127, np.random.default_rng(0))
    # Standard deviations of the two counts: 158 and 112.
    assert abs((lengths < 127).sum() - 50_000) < 700
    assert abs((lengths < 16).sum() - 25_000) < 500


@pytest.mark.parametrize("per_step", [False, True])
def test_beginnings(per_step: bool) -> None:
    """Learning the beginnings of sequences is the same as learning sequences that end there."""
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
    """XLA compiles the same program whatever length is drawn, and so compiles it once."""
    x = tf.constant(data(2)[0])
    beginnings = tf.function(lambda n: training._beginnings(x, n, PAD), jit_compile=True)
    assert compiled(beginnings, tf.constant(2)) == compiled(beginnings, tf.constant(3))


def test_min_steps_changes_the_training() -> None:
    """`min_steps` changes the epochs; the same value gives the same epochs again."""
    x, y = data(45)
    made = [
        fit(
            build_model(data_params(), model_params(units=8), 5, True), x, y, recipe(5, min_steps=n)
        )
        for n in (None, 2, 2)
    ]
    assert made[0] != made[1] == made[2]


def test_curriculum_with_one_label_per_step() -> None:
    """With one label per step, a phase's labels are those of its steps."""
    x, y = data(45, [1], per_step=True)
    models = [small_model(per_step=True) for _ in range(2)]
    prefix = fit(models[0], x[:, :3], y[:, :3], recipe(3))
    phase = fit(models[1], x, y, recipe(1, curriculum=curriculum(3, 3, 0.01)))
    assert phase[:3] == prefix


def test_measures_are_those_of_evaluate() -> None:
    """With one label per step, the compiled program's validation agrees with `evaluate`."""
    x, y = data(45, [1, 0], per_step=True)
    model = small_model(per_step=True)
    last = fit(model, x, y, recipe(5, 0.05))[-1]
    result = evaluate(predict(model, x[36:], 9), y[36:])
    assert last.val_loss == pytest.approx(result.loss, rel=1e-4)
    assert last.val_accuracy == significant(result.accuracy)
