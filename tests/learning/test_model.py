"""A model has the size and initial weights that its params say; equal models give equal files."""

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support.params import RECIPE, data_params, model_params
from vanilla_lstm.learning.backend import keras, tf
from vanilla_lstm.learning.initializers import Orthogonal
from vanilla_lstm.learning.model import CELLS, build_model, predict, summary
from vanilla_lstm.learning.model_file import read_model, write_model
from vanilla_lstm.task.sequences import PAD

pytestmark = pytest.mark.pipeline

DIGITS = np.random.default_rng(0).integers(0, 4, (6, 10), np.uint8)

# Per gate: input weights, state weights and biases; then 25 * 5 + 5 for the softmax.
COUNTS = {
    ("lstm", 5): 3230,  # the post's: 4 * (5 * 25 + 25 * 25 + 25) + 130
    ("lstm", 10): 3730,  # 4 * (10 * 25 + 25 * 25 + 25) + 130
    ("simple_rnn", 5): 905,  # 5 * 25 + 25 * 25 + 25 + 130
    ("simple_rnn", 10): 1030,  # 10 * 25 + 25 * 25 + 25 + 130
}


def post_model(seed: int = 1, **changed: Any) -> keras.Model:
    """Return the post's model with some keys of the sections `data` and `model` changed."""
    of_model = {k: v for k, v in changed.items() if k in RECIPE["model"]}
    of_data = {k: v for k, v in changed.items() if k not in of_model}
    return build_model(data_params(**of_data), model_params(**of_model), seed)


def test_parameter_count() -> None:
    """Each architecture has as many parameters as its equations say, whatever its labels."""
    assert {cell for cell, _ in COUNTS} == set(CELLS)
    for (cell, n_symbols), count in COUNTS.items():
        model = post_model(cell=cell, insert=n_symbols == 10, per_step=n_symbols == 10)
        assert (model.count_params(), f"{count:,}" in summary(model)) == (count, True), cell
    assert post_model(forget_bias="chrono").count_params() == 3230


def test_chrono_bias() -> None:
    """Forget gates have the bias log U(1, t_max - 1), input gates its negative, all others 0."""
    model = post_model(forget_bias="chrono", n_steps=200)
    initial = model.get_layer("lstm").cell.bias_initializer
    b_i, b_f, b_c, b_o = np.split(np.asarray(initial((4000,))), 4)
    np.testing.assert_array_equal(b_i, -b_f)
    assert (b_f >= 0).all()
    assert (b_f <= np.log(199)).all()
    # The mean of U(1, 199) is 100 and its standard error over 1,000 draws 1.8.
    assert abs(np.exp(b_f).mean() - 100) < 9
    assert not b_c.any()
    assert not b_o.any()
    bias = model.get_layer("lstm").cell.bias.numpy()
    np.testing.assert_array_equal(bias, initial((100,), "float32"))


def test_default_bias() -> None:
    """The default bias is 1 for the forget gates and 0 for all others."""
    bias = post_model().get_layer("lstm").cell.bias.numpy()
    np.testing.assert_array_equal(bias, np.repeat([0, 1, 0, 0], 25))


def test_orthogonal() -> None:
    """The recurrent weights are Keras's up to rounding, and orthonormal."""
    for shape in [(25, 100), (64, 256), (150, 150), (9, 4)]:
        ours = np.asarray(Orthogonal(seed=3)(shape))
        keras_own = keras.initializers.Orthogonal(seed=3)(shape)
        np.testing.assert_allclose(ours, keras_own, atol=2e-6)
        product = ours @ ours.T if shape[0] <= shape[1] else ours.T @ ours
        np.testing.assert_allclose(product, np.eye(min(shape)), atol=2e-6)


def test_any_length() -> None:
    """A model takes sequences of any length, even of one step, in batches of any size."""
    model = post_model(cell="simple_rnn", per_step=True)
    for n_steps in (1, 30):
        digits = np.resize(DIGITS, (4, n_steps))
        probabilities = predict(model, digits, batch_size=3)
        assert probabilities.shape == (4, n_steps, 5)
        assert probabilities.dtype == np.float32
        np.testing.assert_allclose(probabilities.sum(-1), 1, rtol=1e-5)
        np.testing.assert_allclose(probabilities, model(digits.astype(int)), rtol=1e-4, atol=1e-6)


def test_padding_is_skipped() -> None:
    """Padding changes no probability, and the layer that masks it survives a round trip."""
    data, params = data_params(insert=3), model_params(units=4)
    model = build_model(data, params, seed=1, padded=True)
    plain = build_model(data, params, seed=1)
    rng = np.random.default_rng(0)  # for weights too: with biases of 0, padding has no effect
    plain.set_weights([rng.normal(size=weights.shape) for weights in plain.get_weights()])
    model.set_weights(plain.get_weights())
    x = rng.integers(0, 10, (6, 5)).astype(np.uint8)
    padded = np.concatenate([np.full((6, 3), PAD, np.uint8), x], 1)
    expected = predict(plain, x, 6)
    np.testing.assert_allclose(predict(model, padded, 6), expected, atol=1e-6)
    np.testing.assert_allclose(predict(model, x, 6), expected, atol=1e-6)
    assert np.abs(predict(plain, padded, 6) - expected).max() > 1e-3
    layer = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(model.get_layer("one_hot"))
    )
    assert layer.mask_padding
    assert "mask_padding" not in plain.get_layer("one_hot").get_config()


def test_digits_are_one_hot() -> None:
    """The first layer encodes the digit d as a 1 at index d."""
    encoded = post_model().get_layer("one_hot")(np.array([[3, 0]]))
    assert encoded.numpy().tolist() == [[[0, 0, 0, 1, 0], [1, 0, 0, 0, 0]]]


MODELS: list[dict[str, Any]] = [
    {"forget_bias": "chrono"},
    {"cell": "simple_rnn", "per_step": True},
]
"""Models that have every class of ours between them."""


@pytest.mark.parametrize("changed", MODELS)
def test_file_round_trip(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: dict[str, Any]
) -> None:
    """A model read back from its file is the same, bit for bit, and writes the same file.

    The file names no module: moving a class to another one changes no byte.
    """
    path, other = tmp_path / "model.keras", tmp_path / "other.keras"
    model = post_model(**changed)
    write_model(path, model)
    again = read_model(path)
    for a, b in zip(model.weights, again.weights, strict=True):
        assert a.numpy().tobytes() == b.numpy().tobytes()
    np.testing.assert_array_equal(model(DIGITS), again(DIGITS))
    assert summary(model) == summary(again)
    write_model(other, again)
    assert other.read_bytes() == path.read_bytes()
    names = ["OneHot", "LSTM", "SimpleRNNCell", "Dense", "Orthogonal", "ChronoInitializer"]
    for name in names:
        kind = keras.saving.get_registered_object(f"vanilla_lstm>{name}")
        monkeypatch.setattr(kind, "__module__", f"elsewhere.{name}")
    moved = post_model(**changed)
    moved.save(other)
    with zipfile.ZipFile(other) as file:  # otherwise the test would prove nothing
        raw = file.read("config.json")
    cell = {"SimpleRNNCell"} if "cell" in changed else {"LSTM", "ChronoInitializer"}
    used = {name for name in names if f"elsewhere.{name}".encode() in raw}
    assert used == {"OneHot", "Dense", "Orthogonal"} | cell
    write_model(other, moved)
    assert other.read_bytes() == path.read_bytes()


def test_file_bytes(tmp_path: Path) -> None:
    """Equal seeds give equal bytes, and others do not.

    The file has no time, no memory address and no optimizer.
    """
    optimized = post_model()
    keras.optimizers.Adam().build(optimized.trainable_variables)
    paths = [tmp_path / f"{name}.keras" for name in "abc"]
    for path, model in zip(paths, (post_model(), optimized, post_model(seed=2)), strict=True):
        write_model(path, model)
    first, second, other = (path.read_bytes() for path in paths)
    assert first == second != other
    with zipfile.ZipFile(paths[0]) as file:
        assert {info.date_time[0] for info in file.infolist()} == {1980}
        texts = [file.read(name).decode() for name in file.namelist() if name.endswith(".json")]
    assert len(texts) == 2
    assert not any("shared_object_id" in text or "date_saved" in text for text in texts)


def test_the_backend_is_tensorflow() -> None:
    """A Keras backend set in the user's environment does not reach the pipeline."""
    assert keras.backend.backend() == "tensorflow"
    assert not tf.config.get_visible_devices("GPU")
