"""Params that need more memory than the machine has are refused before anything is made."""

import os
import re

import pytest

from support.params import changed, refusal
from vanilla_lstm.task.params import parse_params


@pytest.mark.parametrize(
    ("key", "more"),
    [
        ("train_data.n_samples", {}),
        ("data.n_steps", {}),
        ("test_data.insert", {"data__insert": "1"}),
        ("model.units", {}),
        ("train.epochs", {}),
        ("train.batch_size", {"train_data__n_samples": "30000000"}),
        ("evaluate.batch_size", {"test_data__n_samples": "30000000"}),
    ],
)
def test_more_than_fits_in_memory(key: str, more: dict[str, str]) -> None:
    """The error names the key and how much memory its value would need."""
    value = "1000000000000"
    text = changed(**more, **{key.replace(".", "__"): value})
    (line,) = (line for line in refusal(text) if " GB " in line)
    assert re.fullmatch(
        rf"params\.yaml: {key}: must be smaller: .* would need [\d,]+ GB, but this machine has "
        rf"[\d,]+ GB of memory; received {value}",
        line,
    )


def test_epochs_of_all_phases_count_together() -> None:
    """The curriculum's epochs and those after it are added up: both must fit in memory together."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    epochs = int(0.6 * memory / 250)
    curriculum = f"[{{n_steps: 5, epochs: {epochs}, learning_rate: 0.001}}]"
    parse_params(changed(train__epochs=str(epochs)))
    parse_params(changed(train__curriculum=curriculum))
    (line,) = refusal(changed(train__epochs=str(epochs), train__curriculum=curriculum))
    assert line.startswith("params.yaml: train.epochs: must be smaller: the curves would need")


def test_a_batch_is_no_larger_than_its_data() -> None:
    """A batch size above the number of samples is accepted: a batch is no larger than its data."""
    parse_params(changed(train__batch_size="1000000000", evaluate__batch_size="1000000000"))
