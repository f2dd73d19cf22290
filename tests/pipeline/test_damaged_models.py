"""A model file is never trusted: one that does not fit is refused, and no code in it runs."""

import io
import json
import pickle
import zipfile
from pathlib import Path
from typing import Any

import pytest

from support.params import data_params, model_params
from vanilla_lstm.task.artifacts import MODEL
from vanilla_lstm.task.errors import FileError

pytestmark = pytest.mark.pipeline

DATA = data_params(n_steps=4)


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> zipfile.ZipFile:
    """An intact model file in an otherwise empty working directory."""
    monkeypatch.chdir(tmp_path)
    return zipfile.ZipFile(io.BytesIO(saved()))


def saved(**task: Any) -> bytes:
    """Write a new model for a task and return the content of its file."""
    from vanilla_lstm.learning.model import build_model
    from vanilla_lstm.learning.model_file import write_model

    write_model(MODEL, build_model(data_params(**task), model_params(units=2), seed=1))
    return MODEL.read_bytes()


def rewritten(model: zipfile.ZipFile, **members: bytes | None) -> bytes:
    """Return a model file with some members replaced (None: removed; `__`: a dot)."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in model.namelist():
            content = members.get(name.replace(".", "__"), model.read(name))
            if content is not None:
                archive.writestr(name, content)
    return buffer.getvalue()


def with_layer(model: zipfile.ZipFile, layer: dict[str, Any]) -> bytes:
    """Return a model file in which another object replaces one layer."""
    config = json.loads(model.read("config.json"))
    config["config"]["layers"][1] = layer
    return rewritten(model, config__json=json.dumps(config).encode())


def with_lambda() -> bytes:
    """Return a model file with a layer that is Python code."""
    from vanilla_lstm.learning.backend import keras

    def run_code(x: Any) -> Any:
        Path("code-was-run").touch()
        return x

    layer = keras.layers.Lambda(lambda x: run_code(x), output_shape=(3,))  # noqa: PLW0108
    keras.Sequential([keras.Input((3,)), layer]).save(MODEL)
    Path("code-was-run").unlink(missing_ok=True)
    return MODEL.read_bytes()


def test_damaged_models(model: zipfile.ZipFile) -> None:
    """Anything but a model is refused in one line with file and cure; no code in it runs."""
    from vanilla_lstm.learning.model_file import read_model

    good, weights = MODEL.read_bytes(), model.read("model.weights.h5")
    system = {"module": "os", "class_name": "system", "registered_name": None}
    run = {"module": "builtins", "class_name": "exec", "registered_name": "exec"}
    for content in [
        b"",
        good[:-20],
        good[100:],
        good.replace(weights.rstrip(b"\0")[-8:], bytes(8)),
        weights,
        pickle.dumps([1]),
        rewritten(model, config__json=None),
        rewritten(model, config__json=b"[]"),
        rewritten(model, config__json=b"[" * 100_000),
        rewritten(model, model__weights__h5=b"damaged"),
        with_layer(model, {**system, "config": "touch code-was-run"}),
        with_layer(model, {**run, "config": {"source": "open('code-was-run', 'w')"}}),
        with_layer(model, {"class_name": "Unknown", "config": {}}),
        with_lambda(),
    ]:
        MODEL.write_bytes(content)
        with pytest.raises(FileError) as caught:
            read_model(MODEL)
        line = str(caught.value)
        assert line.startswith(f"{MODEL}: cannot be read (")
        assert line.endswith(" make it again")
        assert "\n" not in line
        assert not Path("code-was-run").exists()
    MODEL.unlink()
    with pytest.raises(FileError, match="No such file or directory"):
        read_model(MODEL)
    MODEL.mkdir()
    with pytest.raises(FileError, match="Is a directory"):
        read_model(MODEL)


def test_model_of_other_data(model: zipfile.ZipFile) -> None:
    """A model that does not fit the test data is refused; one with more symbols fits."""
    from vanilla_lstm.learning.backend import keras
    from vanilla_lstm.learning.model_file import read_model

    read_model(MODEL, DATA)
    others: list[dict[str, Any]] = [{"n_max": 4}, {"per_step": True}]
    for task in others:
        saved(**task)
        with pytest.raises(FileError, match="does not fit the test data: 5 symbols, 5 classes"):
            read_model(MODEL, DATA)
    keras.Sequential([keras.Input((3,)), keras.layers.Dense(5)]).save(MODEL)
    with pytest.raises(FileError, match="does not fit"):
        read_model(MODEL, DATA)
    saved(insert=3)
    read_model(MODEL, DATA)
