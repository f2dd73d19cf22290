"""The model as MLflow serves it: digits in, probabilities out, anything else refused.

MLflow copies this package beside each model that it stores, so a model is served by the code
that it was trained with.
"""

import json
import platform
import shutil
from collections.abc import Sequence
from importlib.metadata import version
from numbers import Real
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
        n_max, n_symbols = model.output_shape[-1], model.get_layer("one_hot").n_symbols
        # The class n_max - 1 never occurs in the data; distractors are n_max and above.
        self._symbols = {symbol for symbol in range(n_symbols) if symbol % n_max < n_max - 1}
        self._rule = f"must be whole numbers, 0 to {n_max - 2}"
        if n_symbols > n_max:
            self._rule += f" or, as distractors, {n_max} to {n_symbols - 2}"

    def predict(self, digits: Any) -> npt.NDArray[np.float32]:
        """Return the probabilities for digits `[n_samples, n_steps]`.

        Raises `MlflowException`, which the server answers with status 400.
        """
        values = np.array(np.asarray(digits, object).tolist(), object)
        if values.ndim != 2 or not values.size:
            raise MlflowException.invalid_parameter_value(
                "digits must be [n_samples, n_steps], all sequences of the same length; "
                f"received {list(values.shape)}"
            )
        for value in values.flat:
            is_number = isinstance(value, Real) and not isinstance(value, bool)
            if not is_number or value not in self._symbols:
                raise MlflowException.invalid_parameter_value(
                    f"digits {self._rule}; received {value!r}"
                )
        return np.asarray(self._model(values.astype(np.int64)))


def _load_pyfunc(path: str) -> DigitClassifier:
    """Load what MLflow stored; MLflow calls this by its name."""
    return DigitClassifier(read_model(Path(path)))
