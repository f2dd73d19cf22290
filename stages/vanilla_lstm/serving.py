"""The model as MLflow serves it: digits in, probabilities out, anything else refused.

MLflow stores a copy of this package with each model (`artifacts` in dvc.yaml), so a model is served
by the code that trained it.
"""

from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from mlflow.exceptions import MlflowException

from vanilla_lstm.learning.backend import keras
from vanilla_lstm.learning.model_file import read_model

_LONGEST, _MOST = 10_000, 100_000  # answered in seconds; a server gives up after a minute


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
    """Load a model's file; MLflow calls this function by name."""
    return DigitClassifier(read_model(Path(path)))
