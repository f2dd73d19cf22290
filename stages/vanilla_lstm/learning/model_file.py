"""The file format of a trained model: Keras's, with equal bytes for equal weights."""

import json
import zipfile
from pathlib import Path

from bridge.run.errors import FileError
from vanilla_lstm.learning import model as _registers_its_layers  # noqa: F401
from vanilla_lstm.learning.backend import keras
from vanilla_lstm.task.artifacts import unreadable
from vanilla_lstm.task.params import DataParams


def write_model(path: Path, model: keras.Model) -> None:
    """Write a model's file; raises `OSError`.

    Three things that Keras adds are left out: the time (in the zip and in its metadata), the memory
    addresses of shared objects, and the modules of this project's classes, which Keras finds by
    their registered names.
    """
    saved = path.with_name(f"{path.name}.keras")  # next to it: a temporary folder may be full
    try:
        model.save(saved)
        with zipfile.ZipFile(saved) as source, zipfile.ZipFile(path, "w") as target:
            for name in sorted(source.namelist()):
                content = source.read(name)
                if name.endswith(".json"):
                    content = json.dumps(json.loads(content, object_hook=_without_noise)).encode()
                target.writestr(zipfile.ZipInfo(name), content)  # dated 1980
    finally:
        saved.unlink(missing_ok=True)


def _without_noise(mapping: dict[str, object]) -> dict[str, object]:
    kept = {k: v for k, v in mapping.items() if k not in ("date_saved", "shared_object_id")}
    return {**kept, "module": None} if kept.get("registered_name") else kept


def read_model(path: Path) -> keras.Model:
    """Read a model without ever running code from the file; raises `FileError`."""
    try:
        with zipfile.ZipFile(path) as archive:  # Keras reports a file that is not a zip as missing
            if damaged := archive.testzip():
                raise ValueError(f"its {damaged} is damaged")
        return keras.saving.load_model(path, safe_mode=True)
    except Exception as error:  # whatever the readers of zip, JSON and HDF5 raise
        raise unreadable(path, error) from None


def check_fit(path: Path, model: keras.Model, data: DataParams) -> None:
    """Raise `FileError` if the model does not take the sequences that `data` describes."""
    output = (None, None, data.n_max) if data.per_step else (None, data.n_max)
    one_hot = next((layer for layer in model.layers if layer.name == "one_hot"), None)
    if getattr(one_hot, "n_symbols", 0) < data.n_symbols or model.output_shape != output:
        problem = (
            f"does not fit the test data: {data.n_symbols} symbols, {data.n_max} classes, "
            f"one label per {'step' if data.per_step else 'sequence'}"
        )
        raise FileError(path, problem, "`dvc repro` makes both from the same params")
