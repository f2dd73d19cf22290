"""Check that the params ask for no more memory than this machine has."""

import os
from collections.abc import Iterator
from dataclasses import asdict

from vanilla_lstm.task.errors import ParamsError, broken_rule
from vanilla_lstm.task.params_file import PARAMS, flatten
from vanilla_lstm.task.schema import Params


def check_memory(params: Params) -> None:
    """Raise `ParamsError` if something would need more memory than this machine has.

    Separate from the rules, so that a smaller machine can still parse a larger one's params.
    """
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for what, needed, keys in _needs(params):
        if needed > memory:
            values = flatten(asdict(params))
            key = max(keys, key=lambda key: values[key] or 0)
            have, need = (f"{figure / 1e9:,.0f} GB" for figure in (memory, needed))
            rule = (
                f"must be smaller: {what} would need {need}, but this machine has {have} of memory"
            )
            # One error is enough: the same key often causes the others.
            raise ParamsError(PARAMS, [broken_rule(key, rule, values[key])])


def _needs(params: Params) -> Iterator[tuple[str, int, list[str]]]:
    """Yield each large item, its rough size in bytes, and the keys that it grows with."""
    data, test, train, units = params.data, params.test_sequences, params.train, params.model.units
    n_train, n_test = params.train_data.n_samples, params.test_data.n_samples
    batch, test_batch = min(train.batch_size, n_train), min(params.evaluate.batch_size, n_test)
    steps, test_steps = data.n_steps + data.insert, test.n_steps + test.insert
    length, width = ["data.n_steps", "data.insert"], units + data.n_max
    test_length = ["test_data.n_steps", "test_data.insert", *length]
    # Per symbol: the symbol and its label, in NumPy and in TensorFlow. Per weight: the float32, two
    # moments, the gradient and the best value. Per batch: what back-propagation keeps per step.
    yield "the training data", 4 * n_train * steps, ["train_data.n_samples", *length]
    yield "the test data", 4 * n_test * test_steps, ["test_data.n_samples", *test_length]
    yield "the model", 80 * units * width, ["model.units"]
    yield "a batch", 32 * batch * steps * width, ["train.batch_size", "model.units", *length]
    keys = ["evaluate.batch_size", "model.units", *test_length]
    yield "a batch", 16 * test_batch * test_steps * width, keys
    longer = "train.epochs" if train.n_epochs <= 2 * train.epochs else "train.curriculum"
    yield "the curves", 250 * train.n_epochs, [longer]
