"""The file format of a trained model: Keras's, with equal bytes for equal weights."""

import json
import zipfile
from pathlib import Path

from vanilla_lstm.learning import model as _registers_its_layers  # noqa: F401
from vanilla_lstm.learning.backend import keras
from vanilla_lstm.task.artifacts import unreadable, writing
from vanilla_lstm.task.errors import FileError
from vanilla_lstm.task.schema import DataParams


def write_model(path: Path, model: keras.Model) -> None:
    """Write a model's file; raises `FileError`.

    Three things that Keras adds are left out: the time (in the zip and in its metadata), the memory
    addresses of shared objects, and the modules of this project's classes, which Keras finds by
    their registered names.
    """
    with writing(path):
        model.save(path)
        with zipfile.ZipFile(path) as source:
            contents = {name: source.read(name) for name in sorted(source.namelist())}
        with zipfile.ZipFile(path, "w") as target:
            for name, content in contents.items():
                plain = _without_noise(content) if name.endswith(".json") else content
                target.writestr(zipfile.ZipInfo(name), plain)  # dated 1980


def _without_noise(content: bytes) -> bytes:
    return json.dumps(json.loads(content, object_hook=_kept)).encode()


def _kept(mapping: dict[str, object]) -> dict[str, object]:
    kept = {k: v for k, v in mapping.items() if k not in ("date_saved", "shared_object_id")}
    return {**kept, "module": None} if kept.get("registered_name") else kept


def read_model(path: Path, data: DataParams | None = None) -> keras.Model:
    """Read a model without ever running code from the file.

    Raises `FileError`, also if the model does not take the sequences that `data` describes.
    """
    try:
        with zipfile.ZipFile(path) as archive:  # Keras reports a file that is not a zip as missing
            if damaged := archive.testzip():
                raise ValueError(f"its {damaged} is damaged")
        model = keras.saving.load_model(path, safe_mode=True)
    except Exception as error:  # whatever the readers of zip, JSON and HDF5 raise
        raise unreadable(path, error) from None
    if data is not None:
        _check_fit(path, model, data)
    return model


def _check_fit(path: Path, model: keras.Model, data: DataParams) -> None:
    output = (None, None, data.n_max) if data.per_step else (None, data.n_max)
    one_hot = next((layer for layer in model.layers if layer.name == "one_hot"), None)
    if getattr(one_hot, "n_symbols", 0) < data.n_symbols or model.output_shape != output:
        problem = (
            f"does not fit the test data: {data.n_symbols} symbols, {data.n_max} classes, "
            f"one label per {'step' if data.per_step else 'sequence'}"
        )
        raise FileError(path, problem, "`dvc repro` makes both from the same params")
