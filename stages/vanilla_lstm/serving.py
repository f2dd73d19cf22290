"""The model as MLflow serves it: digits in, probabilities out, anything else refused.

MLflow stores a copy of this package and the bridge with each model, so a model is served by the
code that trained it.
"""

import warnings
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

import bridge
from vanilla_lstm.learning.backend import keras
from vanilla_lstm.learning.model_file import read_model

_CODE = [Path(__file__).parent, Path(bridge.__file__).parent]
_LONGEST, _MOST = 10_000, 100_000  # answered in seconds; a server gives up after a minute
_NEEDED = ("keras", "mlflow", "numpy", "pydantic", "pyyaml", "tensorflow")


def save(
    model: Path, *, path: str, mlflow_model: Model, output_shape: Sequence[int | None]
) -> None:
    """Write what MLflow serves: the model file, the code it needs and the pinned requirements."""
    # Digits are objects, because MLflow would turn 1.5 into 1 before `predict` checks it.
    digits = TensorSpec(np.dtype(object), (-1,))
    probabilities = TensorSpec(np.dtype(np.float32), tuple(n or -1 for n in output_shape))
    with warnings.catch_warnings():
        # The signature is enough; MLflow would run an example through the model.
        warnings.filterwarnings("ignore", "(?s).*An input example was not provided")
        mlflow.pyfunc.save_model(
            path,
            loader_module=__name__,
            data_path=str(model),
            code_paths=[str(folder) for folder in _CODE],
            mlflow_model=mlflow_model,
            signature=ModelSignature(Schema([digits]), Schema([probabilities])),
            # Given explicitly: MLflow would take many seconds to infer them.
            pip_requirements=[f"{name}=={version(name)}" for name in _NEEDED],
        )


class DigitClassifier:
    """A trained model that validates its input."""

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
        if values.ndim != 2 or not 0 < values.size <= _MOST or values.shape[1] > _LONGEST:
            raise MlflowException.invalid_parameter_value(
                "digits must be [n_samples, n_steps], all sequences of the same length, "
                f"{_LONGEST:,} steps and {_MOST:,} digits at most; received {list(values.shape)}"
            )
        for value in values.flat:
            is_number = isinstance(value, Real) and not isinstance(value, bool)
            if not is_number or value not in self._symbols:
                raise MlflowException.invalid_parameter_value(
                    f"digits {self._rule}; received {value!r}"
                )
        return np.asarray(self._model(values.astype(np.int64)))


def _load_pyfunc(path: str) -> DigitClassifier:
    """Load the stored model; MLflow calls this function by name."""
    return DigitClassifier(read_model(Path(path)))
