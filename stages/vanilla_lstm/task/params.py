"""params.yaml: read, and checked against its schema, the rules between keys and the memory."""

from collections.abc import Iterator
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Any

from voluptuous import Invalid, MultipleInvalid, RequiredFieldInvalid

from vanilla_lstm.task.errors import ParamsError, broken_rule
from vanilla_lstm.task.memory import check_memory
from vanilla_lstm.task.params_file import PARAMS, flatten, parse, read
from vanilla_lstm.task.schema import Params


def read_params(path: Path = PARAMS) -> Params:
    """Return the parameters in a file.

    Raises `FileError` if the file cannot be read, and `ParamsError` if it breaks a rule or asks for
    more memory than this machine has.
    """
    params = parse_params(read(path), path)
    check_memory(params)
    return params


def parse_params(text: str, path: Path = PARAMS) -> Params:
    """Return the parameters in `text`; raises `ParamsError`."""
    return _validated(parse(text, path), path)


def _validated(values: dict[str, Any], path: Path) -> Params:
    try:
        params = Params.of(values)
    except MultipleInvalid as error:
        raise ParamsError(path, [_problem(each, values) for each in error.errors]) from None
    if broken := [(key, rule) for key, rule, holds in _relations(params) if not holds]:
        received = flatten(values)
        raise ParamsError(path, [broken_rule(key, rule, received[key]) for key, rule in broken])
    return params


def _problem(error: Invalid, values: Any) -> str:
    """Name the key, the rule and the value of an error."""
    received = []
    if not isinstance(error, RequiredFieldInvalid):
        received = [reduce(getitem, error.path, values)]
    key = ".".join(map(str, error.path))
    rule = error.msg.removeprefix("value ")  # voluptuous's own rules begin with "value must"
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


if __name__ == "__main__":  # for `make repro`: no stage reads what is misspelt
    read_params()
