"""The schema of params.yaml: every key with its type and range.

`25.0` passes as a whole number, because DVC treats it as `25`.
"""

import math
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


def _whole(value: object) -> object:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _tuple(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


Whole = BeforeValidator(_whole)
Count = Annotated[int, Field(ge=1, le=10**15), Whole]  # the real limit is memory
Natural = Annotated[int, Field(ge=0, le=10**15), Whole]
Seed = Annotated[int, Field(ge=0, le=2**32 - 1), Whole]
LearningRate = Annotated[float, Field(gt=0, le=1)]


class Section(BaseModel):
    """A mapping of params.yaml whose values are valid."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, strict=True)


class DataParams(Section):
    """The sequences, in training and test data alike."""

    n_max: Annotated[int, Field(ge=3, le=127), Whole]
    n_steps: Count
    targets: Annotated[tuple[Natural, ...], Field(min_length=1), BeforeValidator(_tuple)]
    insert: Natural
    marked: bool
    per_step: bool

    @property
    def n_symbols(self) -> int:
        """The size of the alphabet that the sequences are written in."""
        return 2 * self.n_max if self.insert and self.marked else self.n_max


class TrainDataParams(Section):
    """The training data set."""

    name: ClassVar = "train_data"

    n_samples: Annotated[int, Field(ge=2, le=10**15), Whole]
    seed: Seed
    min_insert: Natural | None

    def applied_to(self, data: DataParams) -> DataParams:
        """Return the params of a training sequence: `data` itself."""
        return data


class TestDataParams(Section):
    """The test data set; None means the value in `data`."""

    name: ClassVar = "test_data"
    min_insert: ClassVar = None  # all test sequences have the same number of distractors

    n_samples: Count
    seed: Seed
    n_steps: Count | None
    insert: Natural | None

    def applied_to(self, data: DataParams) -> DataParams:
        """Return the params of a test sequence: `data` with the test set's own lengths."""
        own = self.model_dump(include={"n_steps", "insert"}, exclude_none=True)
        return data.model_copy(update=own)


class ModelParams(Section):
    """The architecture."""

    cell: Literal["lstm", "simple_rnn"]
    units: Count
    forget_bias: Literal["one", "chrono"]
    cell_noise: Annotated[float, Field(ge=0, le=1)]


class PhaseParams(Section):
    """One phase of a curriculum: epochs on the first `n_steps` steps of the sequences."""

    n_steps: Count
    epochs: Count
    learning_rate: LearningRate


class TrainParams(Section):
    """The recipe of training."""

    epochs: Count
    batch_size: Count
    learning_rate: LearningRate
    validation_split: Annotated[float, Field(gt=0, lt=1)]
    seed: Seed
    clipnorm: Annotated[float, Field(ge=1e-6, le=1e6)] | None
    keep: Literal["last", "best"]
    curriculum: Annotated[tuple[PhaseParams, ...], BeforeValidator(_tuple)]
    min_steps: Count | None
    stop_at_accuracy: Annotated[float, Field(gt=0, le=1)] | None

    @property
    def n_epochs(self) -> int:
        """The number of epochs of all phases, if none ends early."""
        return self.epochs + sum(phase.epochs for phase in self.curriculum)

    def pads(self, own: TrainDataParams | TestDataParams) -> bool:
        """Whether training sequences from the data set `own` may begin with `PAD`."""
        return own.min_insert is not None or self.min_steps is not None

    def n_training(self, n_samples: int) -> int:
        """Return how many of the first samples are trained on, rounded as in Keras."""
        return math.floor(n_samples * (1 - self.validation_split))


class EvaluateParams(Section):
    """How the model is evaluated on the test data."""

    batch_size: Count


class Params(Section):
    """The whole of params.yaml."""

    data: DataParams
    train_data: TrainDataParams
    test_data: TestDataParams
    model: ModelParams
    train: TrainParams
    evaluate: EvaluateParams

    @property
    def test_sequences(self) -> DataParams:
        """The params of a test sequence."""
        return self.test_data.applied_to(self.data)


def as_mapping(sections: dict[str, Section]) -> dict[str, dict[str, Any]]:
    """Return the values of sections, nested as in params.yaml."""
    return {name: section.model_dump(mode="json") for name, section in sections.items()}
