"""The schema of params.yaml, and its only reader.

The file is read with the YAML library that DVC reads it with (YAML 1.2: `1e-3` is a number and
`yes` a string), and `25.0` passes where a whole number is asked for, because to DVC it is `25`.
"""

import math
import os
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from ruamel.yaml import YAML

from vanilla_lstm.errors import FileError, ParamsError, broken_rule

PARAMS = Path("params.yaml")
_MAX_BYTES = 20_000  # of which no content takes two seconds to read


def _whole(value: object) -> object:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _tuple(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


Whole = BeforeValidator(_whole)
Count = Annotated[int, Field(ge=1, le=10**15), Whole]  # memory sets the real limit
Natural = Annotated[int, Field(ge=0, le=10**15), Whole]
Seed = Annotated[int, Field(ge=0, le=2**32 - 1), Whole]
LearningRate = Annotated[float, Field(gt=0, le=1)]


class Section(BaseModel):
    """A mapping of params.yaml, its values known to be well-formed."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, strict=True)


class DataParams(Section):
    """What one sequence is, for training and test data alike."""

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
        """Return what one training sequence is: what `data` says."""
        return data


class TestDataParams(Section):
    """The test data set; None stands for what `data` says."""

    name: ClassVar = "test_data"
    min_insert: ClassVar = None  # all test sequences have the same number of distractors

    n_samples: Count
    seed: Seed
    n_steps: Count | None
    insert: Natural | None

    def applied_to(self, data: DataParams) -> DataParams:
        """Return what one test sequence is: `data` with the test set's own lengths."""
        own = self.model_dump(include={"n_steps", "insert"}, exclude_none=True)
        return data.model_copy(update=own)


class ModelParams(Section):
    """The architecture."""

    cell: Literal["lstm", "gru", "simple_rnn"]
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
        """The epochs of all phases, if none ends early."""
        return self.epochs + sum(phase.epochs for phase in self.curriculum)

    def n_training(self, n_samples: int) -> int:
        """Return how many samples, from the first, are trained on; rounded as Keras rounds."""
        return math.floor(n_samples * (1 - self.validation_split))


class EvaluateParams(Section):
    """How the test data is put through the model."""

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
        """What one test sequence is."""
        return self.test_data.applied_to(self.data)


# Pydantic's errors, in the words of someone who writes YAML.
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


def read_params(path: Path = PARAMS) -> tuple[Params, str]:
    """Return the parameters and the text that they were read from.

    Raises `FileError` where the file cannot be read, and `ParamsError` where it breaks a rule.
    """
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_BYTES + 1)
        text = content.decode()
    except (OSError, UnicodeDecodeError) as error:
        cause = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        cure = f"`git checkout {path}` brings the committed one back"
        raise FileError(path, f"cannot be read ({cause})", cure) from None
    if len(content) > _MAX_BYTES:
        raise ParamsError(path, [broken_rule("", f"must be at most {_MAX_BYTES} bytes")])
    return parse_params(text, path), text


def parse_params(text: str, path: Path = PARAMS) -> Params:
    """Return the parameters that `text` holds; raises `ParamsError`."""
    try:
        values = YAML(typ="safe").load(text)
    except Exception as error:  # its own, and Python's that it lets escape: of `!!int ""`, say
        mark = getattr(error, "problem_mark", None)
        cause = getattr(error, "problem", None) or str(error)
        cause = " ".join(cause.split())[:200]
        line = f"line {mark.line + 1}" if mark else ""
        raise ParamsError(path, [broken_rule(line, f"must be valid YAML: {cause}")]) from None
    if not isinstance(values, dict):
        raise ParamsError(path, [broken_rule("", "must be a mapping of sections", values)])
    try:
        params = Params.model_validate(values)
    except ValidationError as error:
        raise ParamsError(path, map(_in_yaml_words, error.errors())) from None
    if problems := list(_related_problems(params)):
        raise ParamsError(path, problems)
    return params


def with_sections(text: str, sections: dict[str, Section]) -> str:
    """Return the params.yaml `text` with some sections' values replaced, its comments kept."""
    yaml = YAML()
    document = yaml.load(text)
    differing = [
        (name, key, value)
        for name, section in sections.items()
        for key, value in section.model_dump(mode="json").items()
        if document[name][key] != value
    ]
    if not differing:
        return text  # written anew, it would be laid out otherwise, and lack each `null`
    for name, key, value in differing:
        document[name][key] = value
    buffer = StringIO()
    yaml.dump(document, buffer)
    return buffer.getvalue()


def flatten(sections: dict[str, Section]) -> dict[str, Any]:
    """Return the values of sections by dotted key, as `dvc params` names them."""
    return {
        f"{name}.{key}": value
        for name, section in sections.items()
        for key, value in section.model_dump(mode="json").items()
    }


def _in_yaml_words(error: Any) -> str:
    rule = _RULES.get(error["type"], error["msg"]).format(**error.get("ctx", {}))
    received = [] if error["type"] == "missing" else [error["input"]]
    key = ".".join(map(str, error["loc"]))
    return broken_rule(key if key.isprintable() else repr(key), rule, *received)


def _relations(params: Params) -> Iterator[tuple[str, str, bool]]:
    """Yield the rules between keys: the key to change, the rule, and whether it holds."""
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
    rule = "must be 'one' but for cell: lstm and sequences of at least 3 steps"
    fits_chrono = model.cell == "lstm" and n_steps + data.insert >= 3
    yield "model.forget_bias", rule, model.forget_bias == "one" or fits_chrono
    rule = "must be 0 but for cell: lstm"
    yield "model.cell_noise", rule, model.cell_noise == 0 or model.cell == "lstm"
    rule = f"must leave samples on either side of train_data.n_samples = {n_samples}"
    yield "train.validation_split", rule, 0 < train.n_training(n_samples) < n_samples
    rule = "must be empty where data.insert is not 0: a prefix may lack the targets"
    yield "train.curriculum", rule, not (train.curriculum and data.insert)
    rule = f"must have each n_steps above data.targets' {last} and below data.n_steps = {n_steps}"
    within = all(last < phase.n_steps < n_steps for phase in train.curriculum)
    yield "train.curriculum", rule, within
    least, shortest = train.min_steps, min([n_steps, *(p.n_steps for p in train.curriculum)])
    rule = "must be null where data.insert is not 0: a beginning may lack the targets"
    yield "train.min_steps", rule, least is None or not data.insert
    rule = f"must be above data.targets' {last} and at most {shortest}, the shortest n_steps learnt"
    yield "train.min_steps", rule, least is None or last < least <= shortest


def _memory(params: Params) -> Iterator[tuple[str, int, list[str]]]:
    """Yield what takes memory, roughly how many bytes, and the keys that it grows with."""
    data, test, train, units = params.data, params.test_sequences, params.train, params.model.units
    n_train, n_test = params.train_data.n_samples, params.test_data.n_samples
    batch, test_batch = min(train.batch_size, n_train), min(params.evaluate.batch_size, n_test)
    steps, test_steps = data.n_steps + data.insert, test.n_steps + test.insert
    length, width = ["data.n_steps", "data.insert"], units + data.n_max
    test_length = ["test_data.n_steps", "test_data.insert", *length]
    # Of a symbol: itself and its label, in NumPy and in TensorFlow. Of a weight: float32, two
    # moments, gradient and best value. Of a batch: what back-propagation keeps of each step.
    yield "the training data", 4 * n_train * steps, ["train_data.n_samples", *length]
    yield "the test data", 4 * n_test * test_steps, ["test_data.n_samples", *test_length]
    yield "the model", 80 * units * width, ["model.units"]
    yield "a batch", 32 * batch * steps * width, ["train.batch_size", "model.units", *length]
    keys = ["evaluate.batch_size", "model.units", *test_length]
    yield "a batch", 16 * test_batch * test_steps * width, keys
    longer = "train.epochs" if train.n_epochs <= 2 * train.epochs else "train.curriculum"
    yield "the curves", 250 * train.n_epochs, [longer]


def _related_problems(params: Params) -> Iterator[str]:
    values = flatten(dict(params))
    for key, rule, holds in _relations(params):
        if not holds:
            yield broken_rule(key, rule, values[key])
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for what, needed, keys in _memory(params):
        if needed > memory:
            key = max(keys, key=lambda key: values[key] or 0)
            have, need = (f"{figure / 1e9:,.0f} GB" for figure in (memory, needed))
            rule = f"must be smaller: {what} would need {need} of this machine's {have} of memory"
            yield broken_rule(key, rule, values[key])
            return  # one is enough: the same key is often to blame for the others
