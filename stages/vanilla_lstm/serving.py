"""The model as MLflow serves it: digits in, probabilities out, anything else refused.

MLflow copies this package beside each model that it stores, so a model is served by the code
that it was trained with.
"""

import json
import platform
import shutil
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mlflow.pyfunc
import numpy as np
import numpy.typing as npt
from mlflow.exceptions import MlflowException
from mlflow.models import Model, ModelSignature
from mlflow.types import Schema, TensorSpec

from vanilla_lstm.backend import keras
from vanilla_lstm.model_file import read_model

_NEEDED = ("keras", "mlflow", "numpy", "pydantic", "ruamel.yaml", "tensorflow")


def write(folder: Path, spec: Model, model: Path, output_shape: Sequence[int | None]) -> None:
    """Write what MLflow serves: a model file, this package, and the versions that both need.

    As `mlflow.pyfunc.save_model` does, but without its search through all installed packages for
    what the requirements name, which would take a third of a second.
    """
    shutil.copytree(
        Path(__file__).parent,
        folder / "code" / "vanilla_lstm",
        ignore=shutil.ignore_patterns("__pycache__"),
    )
    (folder / "data").mkdir()
    shutil.copy(model, folder / "data")
    pinned = [f"{name}=={version(name)}\n" for name in _NEEDED]
    (folder / "requirements.txt").write_text("".join(pinned))
    python = {"python": platform.python_version(), "dependencies": ["-r requirements.txt"]}
    (folder / "python_env.yaml").write_text(json.dumps(python))
    # Digits as objects: from a type of numbers MLflow would make 1.5 a 1 before it is checked.
    digits = TensorSpec(np.dtype(object), (-1,))
    probabilities = TensorSpec(np.dtype(np.float32), tuple(n or -1 for n in output_shape))
    spec.signature = ModelSignature(Schema([digits]), Schema([probabilities]))
    mlflow.pyfunc.add_to_model(
        spec, __name__, f"data/{model.name}", "code", python_env="python_env.yaml"
    )
    spec.save(str(folder / "MLmodel"))


class DigitClassifier:
    """A trained model that checks what it is asked."""

    def __init__(self, model: keras.Model) -> None:
        self._model = model
        self._n_max = model.output_shape[-1]
        self._n_symbols = model.get_layer("one_hot").n_symbols

    def predict(self, digits: Any) -> npt.NDArray[np.float32]:
        """Return the probabilities for digits `[n_samples, n_steps]`.

        Raises `MlflowException`, which the server answers with status 400.
        """
        try:
            return np.asarray(self._model(self._checked(digits)))
        except ValueError as error:
            raise MlflowException.invalid_parameter_value(str(error)) from None

    def _checked(self, digits: Any) -> npt.NDArray[np.int64]:
        try:
            values = np.array(np.asarray(digits, object).tolist())
        except ValueError:
            raise ValueError("all sequences must have the same length") from None
        if values.ndim != 2 or not values.size:
            raise ValueError(f"digits must be [n_samples, n_steps]; received {list(values.shape)}")
        if values.dtype.kind not in "iuf" or (values != values.round()).any():
            raise ValueError(f"digits must be whole numbers; received {_first_bad(values)}")
        # The class n_max - 1 never occurs in the data; distractors are n_max and above.
        wrong = (
            (values < 0) | (values >= self._n_symbols) | (values % self._n_max == self._n_max - 1)
        )
        if wrong.any():
            allowed = f"0 to {self._n_max - 2}"
            if self._n_symbols > self._n_max:
                allowed += f" or, as distractors, {self._n_max} to {self._n_symbols - 2}"
            raise ValueError(f"digits must be {allowed}; received {values[wrong][0]}")
        return values.astype(np.int64)


def _first_bad(values: npt.NDArray[Any]) -> object:
    return values[values != values.round()][0] if values.dtype.kind == "f" else values.flat[0]


def _load_pyfunc(path: str) -> DigitClassifier:
    """Load what MLflow stored; MLflow calls this by its name."""
    return DigitClassifier(read_model(Path(path)))
