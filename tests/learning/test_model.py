"""A model has the size and initial weights that its params say; equal models give equal files."""

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support.sections import RECIPE, data_params, model_params
from vanilla_lstm.learning.backend import keras, tf
from vanilla_lstm.learning.initializers import Orthogonal
from vanilla_lstm.learning.model import CELLS, build_model, predict, summary
from vanilla_lstm.learning.model_file import read_model, write_model
from vanilla_lstm.task.artifacts import MODEL
from vanilla_lstm.task.errors import FileError
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


@pytest.mark.parametrize("per_step", [False, True])
@pytest.mark.parametrize(("cell", "n_symbols"), COUNTS)
def test_parameter_count(cell: str, n_symbols: int, per_step: bool) -> None:
    """Each architecture has exactly as many parameters as its equations say."""
    model = post_model(cell=cell, insert=1 if n_symbols == 10 else 0, per_step=per_step)
    assert model.count_params() == COUNTS[cell, n_symbols]
    assert f"{COUNTS[cell, n_symbols]:,}" in summary(model)


def test_every_cell_is_counted() -> None:
    """Every cell has its counts in the table above."""
    assert {cell for cell, _ in COUNTS} == set(CELLS)


def test_chrono_count() -> None:
    """Another initial bias adds no parameters."""
    assert post_model(forget_bias="chrono").count_params() == 3230


def test_chrono_bias() -> None:
    """Forget gates have the bias log U(1, t_max - 1), input gates its negative, all others 0."""
    model = post_model(forget_bias="chrono", units=1000, n_steps=200)
    b_i, b_f, b_c, b_o = np.split(model.get_layer("lstm").cell.bias.numpy(), 4)
    np.testing.assert_array_equal(b_i, -b_f)
    assert (b_f >= 0).all()
    assert (b_f <= np.log(199)).all()
    # The mean of U(1, 199) is 100 and its standard error over 1,000 draws 1.8.
    assert abs(np.exp(b_f).mean() - 100) < 9
    assert not b_c.any()
    assert not b_o.any()


def test_default_bias() -> None:
    """The default bias is 1 for the forget gates and 0 for all others."""
    bias = post_model().get_layer("lstm").cell.bias.numpy()
    np.testing.assert_array_equal(bias, np.repeat([0, 1, 0, 0], 25))


def test_initial_weights_follow_the_seed() -> None:
    """Initial weights depend on the seed only, not on what was drawn before."""
    first, second = post_model(), post_model()
    other = post_model(seed=2)
    for a, b in zip(first.weights, second.weights, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())
    assert not np.array_equal(first.weights[0].numpy(), other.weights[0].numpy())


@pytest.mark.parametrize("shape", [(25, 100), (64, 256), (150, 150), (9, 4)])
def test_orthogonal(shape: tuple[int, int]) -> None:
    """The recurrent weights are Keras's up to rounding, and orthonormal."""
    ours = np.asarray(Orthogonal(seed=3)(shape))
    keras_own = keras.initializers.Orthogonal(seed=3)(shape)
    np.testing.assert_allclose(ours, keras_own, atol=2e-6)
    product = ours @ ours.T if shape[0] <= shape[1] else ours.T @ ours
    np.testing.assert_allclose(product, np.eye(min(shape)), atol=2e-6)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("per_step", [False, True])
def test_any_length(cell: str, per_step: bool) -> None:
    """A model takes sequences of any length, even of one step, and returns probabilities."""
    model = post_model(cell=cell, per_step=per_step)
    for n_steps in (1, 10, 30):
        digits = np.resize(DIGITS, (4, n_steps))
        probabilities = predict(model, digits, batch_size=3)
        assert probabilities.shape == ((4, n_steps, 5) if per_step else (4, 5))
        assert probabilities.dtype == np.float32
        np.testing.assert_allclose(probabilities.sum(-1), 1, rtol=1e-5)
        np.testing.assert_allclose(probabilities, model(digits.astype(int)), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("cell", ["lstm", "simple_rnn"])
def test_padding_is_skipped(cell: Any) -> None:
    """Padding changes no probability, and the layer that masks it survives a round trip."""
    data, params = data_params(insert=3), model_params(cell=cell, units=4)
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


@pytest.mark.parametrize(
    "changed", [{}, {"forget_bias": "chrono"}, {"cell": "simple_rnn", "per_step": True}]
)
def test_file_round_trip(tmp_path: Path, changed: dict[str, Any]) -> None:
    """A model read back from its file has the same architecture and weights, bit for bit."""
    path = tmp_path / "model.keras"
    model = post_model(**changed)
    write_model(path, model)
    again = read_model(path)
    for a, b in zip(model.weights, again.weights, strict=True):
        assert a.numpy().tobytes() == b.numpy().tobytes()
    np.testing.assert_array_equal(model(DIGITS), again(DIGITS))
    assert summary(model) == summary(again)
    write_model(tmp_path / "again.keras", again)
    assert (tmp_path / "again.keras").read_bytes() == path.read_bytes()


def test_file_bytes(tmp_path: Path) -> None:
    """Equal models give equal bytes: the file contains no time, path or memory address."""
    paths = [tmp_path / "a.keras", tmp_path / "b.keras"]
    for path in paths:
        write_model(path, post_model(forget_bias="chrono"))
    assert paths[0].read_bytes() == paths[1].read_bytes()
    with zipfile.ZipFile(paths[0]) as file:
        assert {info.date_time[0] for info in file.infolist()} == {1980}
        texts = [file.read(name).decode() for name in file.namelist() if name.endswith(".json")]
    assert len(texts) == 2
    assert not any("shared_object_id" in text or "date_saved" in text for text in texts)


@pytest.mark.parametrize("name", ["OneHot", "LSTM", "SimpleRNNCell", "Dense", "ChronoInitializer"])
def test_file_names_no_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Moving a class to another module changes no byte of the file."""
    changed: dict[str, Any] = {"forget_bias": "chrono"}
    if name == "SimpleRNNCell":
        changed = {"cell": "simple_rnn"}
    paths = [tmp_path / "a.keras", tmp_path / "b.keras"]
    write_model(paths[0], post_model(**changed))
    kind = keras.saving.get_registered_object(f"vanilla_lstm>{name}")
    assert kind.__module__.startswith("vanilla_lstm.")
    monkeypatch.setattr(kind, "__module__", "somewhere.else_")
    model = post_model(**changed)
    raw = tmp_path / "raw.keras"
    model.save(raw)
    with zipfile.ZipFile(raw) as file:  # otherwise the test would prove nothing
        assert b"somewhere.else_" in file.read("config.json")
    write_model(paths[1], model)
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert read_model(paths[1]).count_params() == model.count_params()


def test_other_weights_give_other_bytes(tmp_path: Path) -> None:
    """Models with different weights give different bytes."""
    write_model(tmp_path / "a.keras", post_model())
    write_model(tmp_path / "b.keras", post_model(seed=2))
    assert (tmp_path / "a.keras").read_bytes() != (tmp_path / "b.keras").read_bytes()


def test_trained_model_holds_no_optimizer(tmp_path: Path) -> None:
    """Training leaves nothing of the optimizer in the file."""
    model = post_model()
    write_model(tmp_path / "a.keras", model)
    keras.optimizers.Adam().build(model.trainable_variables)
    write_model(tmp_path / "b.keras", model)
    assert (tmp_path / "a.keras").read_bytes() == (tmp_path / "b.keras").read_bytes()


@pytest.fixture
def model_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The path of the model file in an otherwise empty working directory."""
    monkeypatch.chdir(tmp_path)
    MODEL.parent.mkdir()
    return MODEL


def test_unreadable_file(model_path: Path) -> None:
    """The error for a file that is not a model names the cure."""
    model_path.write_bytes(b"no model")
    with pytest.raises(FileError, match="make heal"):
        read_model(model_path)


def test_a_file_runs_no_code(model_path: Path) -> None:
    """A layer that carries Python code is refused, not run."""
    layers = [keras.Input((2,)), keras.layers.Lambda(lambda x: x + 1)]
    keras.Sequential(layers).save(model_path)
    with pytest.raises(FileError, match="Lambda"):
        read_model(model_path)


def test_predicting_in_batches_is_the_same() -> None:
    """The evaluation's batch size limits its memory but changes no probability."""
    model = post_model()
    whole = predict(model, DIGITS, batch_size=6)
    np.testing.assert_allclose(predict(model, DIGITS, batch_size=4), whole, rtol=1e-5)


def test_the_backend_is_tensorflow() -> None:
    """A Keras backend set in the user's environment does not reach the pipeline."""
    assert keras.backend.backend() == "tensorflow"
    assert not tf.config.get_visible_devices("GPU")
