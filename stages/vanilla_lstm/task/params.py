"""The schema of params.yaml: every key with its type and range, and the rules between keys.

`25.0` passes as a whole number, because DVC treats it as `25`.
"""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from bridge.run import params as params_file
from bridge.run.errors import ParamsError, broken_rule
from bridge.run.params import PARAMS, flatten


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


# Pydantic's errors in YAML's terms.
_RULES = {
    "missing": "must be given",
    "extra_forbidden": "must not be given: there is no such key",
    "invalid_key": "must not be given: there is no such key",
    "model_type": "must be a mapping",
    "tuple_type": "must be a list",
    "too_short": "must not be empty",
    "int_type": "must be a whole number",
    "float_type": "must be a number",
    "finite_number": "must be finite",
    "bool_type": "must be true or false",
    "literal_error": "must be {expected}",
    "greater_than": "must be above {gt:.10g}",
    "greater_than_equal": "must be at least {ge:.10g}",
    "less_than": "must be below {lt:.10g}",
    "less_than_equal": "must be at most {le:.10g}",
}


def read_params(path: Path = PARAMS) -> Params:
    """Return the parameters in a file.

    Raises `FileError` if the file cannot be read, and `ParamsError` if it breaks a rule.
    """
    return _validated(params_file.read(path)[0], path)


def parse_params(text: str, path: Path = PARAMS) -> Params:
    """Return the parameters in `text`; raises `ParamsError`."""
    return _validated(params_file.parse(text, path), path)


def as_mapping(sections: dict[str, Section]) -> dict[str, dict[str, Any]]:
    """Return the values of sections, nested as in params.yaml."""
    return {name: section.model_dump(mode="json") for name, section in sections.items()}


def _validated(values: dict[str, Any], path: Path) -> Params:
    try:
        params = Params.model_validate(values)
    except ValidationError as error:
        raise ParamsError(path, map(_in_yaml_words, error.errors())) from None
    received = flatten(as_mapping(dict(params)))
    if broken := [(key, rule) for key, rule, holds in _relations(params) if not holds]:
        raise ParamsError(path, [broken_rule(key, rule, received[key]) for key, rule in broken])
    return params


def _in_yaml_words(error: Any) -> str:
    rule = _RULES.get(error["type"], error["msg"]).format(**error.get("ctx", {}))
    received = [] if error["type"] == "missing" else [error["input"]]
    key = ".".join(map(str, error["loc"]))
    return broken_rule(key if key.isprintable() else repr(key), rule, *received)


def _relations(params: Params) -> Iterator[tuple[str, str, bool]]:
    """Yield each rule between keys: the key to change, the rule, and whether it holds."""
    data, test, model, train = params.data, params.test_sequences, params.model, params.train
    n_samples, n_steps, last = params.train_data.n_samples, data.n_steps, max(data.targets)
    yield "data.targets", "must name each step once", len({*data.targets}) == len(data.targets)
    yield "data.targets", f"must be below data.n_steps = {n_steps}", last < n_steps
    rule = f"must be above data.targets' {last}"
    yield "test_data.n_steps", rule, last < test.n_steps or last >= n_steps
    rule = "must be 0 where data.insert is 0: the model has no symbols for marked distractors"
    yield "test_data.insert", rule, not (test.insert and data.marked and not data.insert)
    rule = f"must be at most data.insert = {data.insert}"
    yield "train_data.min_insert", rule, (params.train_data.min_insert or 0) <= data.insert
    rule = "must be 'one' unless cell is lstm and sequences have at least 3 steps"
    fits_chrono = model.cell == "lstm" and n_steps + data.insert >= 3
    yield "model.forget_bias", rule, model.forget_bias == "one" or fits_chrono
    rule = "must be 0 unless cell is lstm"
    yield "model.cell_noise", rule, model.cell_noise == 0 or model.cell == "lstm"
    rule = f"must split train_data.n_samples = {n_samples} into two parts that are not empty"
    yield "train.validation_split", rule, 0 < train.n_training(n_samples) < n_samples
    rule = "must be empty where data.insert is not 0: a beginning may lack the targets"
    yield "train.curriculum", rule, not (train.curriculum and data.insert)
    rule = f"must have each n_steps above data.targets' {last} and below data.n_steps = {n_steps}"
    within = all(last < phase.n_steps < n_steps for phase in train.curriculum)
    yield "train.curriculum", rule, within
    least, shortest = train.min_steps, min([n_steps, *(p.n_steps for p in train.curriculum)])
    rule = "must be null where data.insert is not 0: a beginning may lack the targets"
    yield "train.min_steps", rule, least is None or not data.insert
    rule = f"must be above data.targets' {last} and at most {shortest}, the shortest n_steps"
    yield "train.min_steps", rule, least is None or last < least <= shortest
