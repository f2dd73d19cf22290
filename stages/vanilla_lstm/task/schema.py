"""The schema of params.yaml: every key with its type and range.

voluptuous validates it, as it does DVC's own files. Pydantic would take 0.07 s longer to load, in
each stage.
"""

import math
from dataclasses import dataclass, fields, replace
from types import NoneType
from typing import Annotated, Any, ClassVar, Literal, Self, get_args, get_origin

import voluptuous as vol

_MOST = 10**15  # more than fits in memory

Natural = Annotated[int, vol.Range(0, _MOST)]
Count = Annotated[int, vol.Range(1, _MOST)]
Seed = Annotated[int, vol.Range(0, 2**32 - 1)]
LearningRate = Annotated[float, vol.Range(0, 1, min_included=False)]


@dataclass(frozen=True)
class Section:
    """A mapping of params.yaml whose values are valid."""

    @classmethod
    def of(cls, values: object) -> Self:
        """Return the section with these values; raises `voluptuous.MultipleInvalid`."""
        section: Self = vol.Schema(cls.rule())(values)
        return section

    @classmethod
    def rule(cls) -> vol.All:
        """Return what validates a mapping and makes a section of it."""
        keys = {vol.Required(f.name, msg="must be given"): _rule_of(f.type) for f in fields(cls)}
        mapping = vol.Msg(dict, "must be a mapping")
        return vol.All(mapping, {**keys, vol.Extra: _unknown}, lambda values: cls(**values))


def _rule_of(hint: Any) -> Any:
    """Return what validates a value and makes it one of this type."""
    kind, arguments = get_origin(hint), get_args(hint)
    if kind is Annotated:
        return vol.All(_rule_of(arguments[0]), *arguments[1:])
    if kind is Literal:
        return vol.In(arguments)
    if kind is tuple:
        return vol.All(vol.Msg(list, "must be a list"), [_rule_of(arguments[0])], vol.Coerce(tuple))
    if NoneType in arguments:
        return vol.Any(_rule_of(arguments[0]), None)
    return _RULES[hint] if hint in _RULES else hint.rule()


def _whole(value: object) -> int:
    if isinstance(value, float) and value.is_integer():  # 25.0, which DVC treats as 25
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise vol.Invalid("must be a whole number")
    return value


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise vol.Invalid("must be a number")
    try:
        return float(value)
    except OverflowError:  # a whole number of more than 308 digits
        return math.inf if value > 0 else -math.inf


def _unknown(_: object) -> None:
    raise vol.Invalid("must not be given: there is no such key")


_RULES = {int: _whole, float: _number, bool: vol.Msg(bool, "must be true or false")}


@dataclass(frozen=True)
class DataParams(Section):
    """The sequences, in training and test data alike."""

    n_max: Annotated[int, vol.Range(3, 127)]
    n_steps: Count
    targets: Annotated[tuple[Natural, ...], vol.Length(1, msg="must not be empty")]
    insert: Natural
    marked: bool
    per_step: bool

    @property
    def n_symbols(self) -> int:
        """The size of the alphabet that the sequences are written in."""
        return 2 * self.n_max if self.insert and self.marked else self.n_max


@dataclass(frozen=True)
class TrainDataParams(Section):
    """The training data set."""

    name: ClassVar = "train_data"

    n_samples: Annotated[int, vol.Range(2, _MOST)]
    seed: Seed
    min_insert: Natural | None

    def applied_to(self, data: DataParams) -> DataParams:
        """Return the params of a training sequence: `data` itself."""
        return data


@dataclass(frozen=True)
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
        n_steps = data.n_steps if self.n_steps is None else self.n_steps
        insert = data.insert if self.insert is None else self.insert
        return replace(data, n_steps=n_steps, insert=insert)


@dataclass(frozen=True)
class ModelParams(Section):
    """The architecture."""

    cell: Literal["lstm", "simple_rnn"]
    units: Count
    forget_bias: Literal["one", "chrono"]
    cell_noise: Annotated[float, vol.Range(0, 1)]


@dataclass(frozen=True)
class PhaseParams(Section):
    """One phase of a curriculum: epochs on the first `n_steps` steps of the sequences."""

    n_steps: Count
    epochs: Count
    learning_rate: LearningRate


@dataclass(frozen=True)
class TrainParams(Section):
    """The recipe of training."""

    epochs: Count
    batch_size: Count
    learning_rate: LearningRate
    validation_split: Annotated[float, vol.Range(0, 1, min_included=False, max_included=False)]
    seed: Seed
    clipnorm: Annotated[float, vol.Range(1e-6, 1e6)] | None
    keep: Literal["last", "best"]
    curriculum: tuple[PhaseParams, ...]
    min_steps: Count | None
    stop_at_accuracy: Annotated[float, vol.Range(0, 1, min_included=False)] | None

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


@dataclass(frozen=True)
class EvaluateParams(Section):
    """How the model is evaluated on the test data."""

    batch_size: Count


@dataclass(frozen=True)
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
