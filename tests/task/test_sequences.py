"""The tasks: examples computed by hand, and properties that hold for all tasks."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.sections import data_params
from vanilla_lstm.task import sequences
from vanilla_lstm.task.sequences import NO_LABEL, PAD, generate, label


def test_the_global_generator_is_untouched() -> None:
    """Generating data draws nothing from NumPy's global generator, which other code may use."""
    before = np.random.get_state()[1].copy()  # type: ignore[index]
    generate(5, 1, n_max=5, n_steps=10, targets=[1], insert=3)
    np.testing.assert_array_equal(before, np.random.get_state()[1])  # type: ignore[index]


CORE = np.array([[3, 1, 0, 2], [2, 2, 3, 3]], np.uint8)
NO = NO_LABEL


@pytest.mark.parametrize(
    ("targets", "per_step", "labels"),
    [
        ([1], False, [1, 2]),
        ([0, 1], False, [0, 0]),  # 3 + 1 = 4, 2 + 2 = 4, both 0 modulo 4
        ([0, 2, 3], False, [1, 0]),  # 3 + 0 + 2 = 5, 2 + 3 + 3 = 8
        ([0], True, [[3, 1, 0, 2], [2, 2, 3, 3]]),
        ([1], True, [[NO, 3, 1, 0], [NO, 2, 2, 3]]),
        ([0, 1], True, [[NO, 0, 1, 2], [NO, 0, 1, 2]]),  # 1 + 3, 0 + 1, 2 + 0; 2 + 2, 3 + 2, 3 + 3
        ([2, 1], True, [[NO, NO, 0, 1], [NO, NO, 0, 1]]),  # 1 + 3, 0 + 1; 2 + 2, 3 + 2
    ],
)
def test_labels(targets: list[int], per_step: bool, labels: list[Any]) -> None:
    """Labels are sums of target digits modulo n_max - 1, as computed by hand."""
    np.testing.assert_array_equal(label(CORE, targets, 5, per_step), labels)


def test_labels_of_the_largest_digits() -> None:
    """With the largest n_max, sums do not overflow the bytes that hold the digits."""
    core = np.full((1, 4), 125, np.uint8)
    assert label(core, [0, 1, 2, 3], 127, per_step=False).tolist() == [500 % 126]
    assert label(core, [0, 1, 2], 127, per_step=True).tolist() == [[NO, NO, 375 % 126, 375 % 126]]


def test_alphabet() -> None:
    """Marked distractors have their own symbols; unmarked ones share the digits'."""
    assert data_params(n_max=5, insert=0, marked=True).n_symbols == 5
    assert data_params(n_max=5, insert=3, marked=False).n_symbols == 5
    assert data_params(n_max=5, insert=3, marked=True).n_symbols == 10


tasks = st.integers(3, 127).flatmap(
    lambda n_max: st.integers(1, 12).flatmap(
        lambda n_steps: st.fixed_dictionaries(
            {
                "n_max": st.just(n_max),
                "n_steps": st.just(n_steps),
                "targets": st.lists(st.integers(0, n_steps - 1), min_size=1, unique=True),
                "insert": st.integers(0, 6),
                "per_step": st.booleans(),
            }
        )
    )
)
sizes = st.integers(1, 30)
seeds = st.integers(0, 2**32 - 1)


@given(task=tasks, n_samples=sizes, seed=seeds)
def test_digits_are_numpys(task: dict[str, Any], n_samples: int, seed: int) -> None:
    """Without distractors, the digits are those that NumPy draws, labelled by the rule."""
    task["insert"] = 0
    x, y = generate(n_samples, seed, **task)
    stream = np.random.RandomState(seed).randint(0, task["n_max"] - 1, n_samples * task["n_steps"])
    np.testing.assert_array_equal(x.ravel(), stream)
    np.testing.assert_array_equal(y, label(x, task["targets"], task["n_max"], task["per_step"]))


@given(task=tasks, n_samples=sizes, seed=seeds)
def test_inserting_keeps_digits_and_labels(task: dict[str, Any], n_samples: int, seed: int) -> None:
    """Distractors change neither the digits, their order nor their labels, and have no label."""
    n_max, insert = task["n_max"], task["insert"]
    plain_x, plain_y = generate(n_samples, seed, **{**task, "insert": 0})
    x, y = generate(n_samples, seed, **task)
    assert x.shape == (n_samples, task["n_steps"] + insert)
    distractor = x >= n_max
    assert (distractor.sum(1) == insert).all()
    np.testing.assert_array_equal(x[~distractor].reshape(plain_x.shape), plain_x)
    assert (x[distractor] < 2 * n_max - 1).all()
    if task["per_step"]:
        np.testing.assert_array_equal(y[~distractor].reshape(plain_y.shape), plain_y)
        assert (y[distractor] == NO_LABEL).all()
    else:
        np.testing.assert_array_equal(y, plain_y)


@given(task=tasks, n_samples=sizes, seed=seeds)
def test_unmarked_distractors_differ_in_symbols_only(
    task: dict[str, Any], n_samples: int, seed: int
) -> None:
    """Unmarked distractors have the same values and places; only their symbols differ."""
    x, y = generate(n_samples, seed, **task)
    unmarked_x, unmarked_y = generate(n_samples, seed, **task, marked=False)
    np.testing.assert_array_equal(unmarked_x, x % task["n_max"])
    np.testing.assert_array_equal(unmarked_y, y)


@given(task=tasks, n_samples=sizes, seed=seeds, chunk=st.integers(1, 60))
def test_chunks_do_not_show(task: dict[str, Any], n_samples: int, seed: int, chunk: int) -> None:
    """Drawing the digits in chunks limits the memory and changes no digit or label."""
    whole = generate(n_samples, seed, **task)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sequences, "_CHUNK", chunk)
        parts = generate(n_samples, seed, **task)
    np.testing.assert_array_equal(parts[0], whole[0])
    np.testing.assert_array_equal(parts[1], whole[1])


@given(task=tasks, n_samples=sizes, seed=seeds, more=sizes)
def test_more_samples_begin_with_the_same(
    task: dict[str, Any], n_samples: int, seed: int, more: int
) -> None:
    """A larger data set with the same seed begins with the smaller one."""
    x, y = generate(n_samples, seed, **task)
    larger_x, larger_y = generate(n_samples + more, seed, **task)
    np.testing.assert_array_equal(larger_x[:n_samples], x)
    np.testing.assert_array_equal(larger_y[:n_samples], y)


def test_distractors_are_at_random_places() -> None:
    """Every place has a distractor in 5 of 15 sequences, within five standard deviations."""
    x, _ = generate(3000, 7, n_max=5, n_steps=10, targets=[1], insert=5)
    share = (x >= 5).mean(0)
    assert np.abs(share - 1 / 3).max() < 5 * (1 / 3 * 2 / 3 / 3000) ** 0.5


PADDED: dict[str, Any] = {"n_max": 5, "n_steps": 3, "targets": [1], "insert": 4, "min_insert": 1}


@pytest.mark.parametrize("per_step", [False, True])
def test_each_sequence_has_its_own_number_of_distractors(per_step: bool) -> None:
    """Every number of distractors occurs equally often; padding is on the left."""
    x, y = generate(4000, 7, **PADDED, per_step=per_step)
    is_pad, is_core = x == PAD, x < 4
    n_inserted = (~is_pad & ~is_core).sum(1)
    assert (is_pad[:, :-1] >= is_pad[:, 1:]).all()
    assert (x[~is_pad & ~is_core] >= 5).all()
    counts = np.bincount(n_inserted, minlength=5)
    assert counts[0] == 0
    assert np.abs(counts[1:] - 1000).max() < 5 * np.sqrt(750)
    plain = {**PADDED, "insert": 0, "min_insert": None}
    digits, labels = generate(4000, 7, **plain, per_step=per_step)
    assert (x[is_core].reshape(-1, 3) == digits).all()
    if per_step:
        assert (y[is_core].reshape(-1, 3) == labels).all()
        assert (y[~is_core] == NO_LABEL).all()
    else:
        assert (y == labels).all()


def test_padded_digits_are_at_random_places() -> None:
    """The digit is at each of the steps that are not padding equally often."""
    x, _ = generate(30_000, 3, **{**PADDED, "n_steps": 1, "targets": [0], "min_insert": 0})
    for n_pads in range(5):
        rows = x[(x == PAD).sum(1) == n_pads] < 4
        n_steps = 5 - n_pads
        expected = len(rows) / n_steps
        assert (rows[:, :n_pads].sum(0) == 0).all()
        assert np.abs(rows[:, n_pads:].sum(0) - expected).max() < 5 * np.sqrt(expected)
