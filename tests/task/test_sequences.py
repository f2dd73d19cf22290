"""The tasks: the post's data, examples computed by hand, and properties of all tasks."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.params import RECIPE, data_params
from vanilla_lstm.task import sequences
from vanilla_lstm.task.sequences import NO_LABEL, PAD, generate, label


def test_the_posts_training_data() -> None:
    """The committed params give the digits and labels that the post's own code gives."""
    state = np.random.get_state()
    np.random.seed(1234)
    digits = np.random.randint(0, 5 - 1, 1000 * 10).reshape(1000, 10, 1)
    np.random.set_state(state)
    x, y = generate(1000, 1234, n_max=5, n_steps=10, targets=[1])
    np.testing.assert_array_equal(x, digits[:, :, 0])
    np.testing.assert_array_equal(y, digits[:, 1, 0])
    assert x.dtype == y.dtype == np.uint8


def test_what_the_post_leaves_implicit() -> None:
    """There are four digits and an unused class, and one test sequence is in the training set."""
    task: dict[str, Any] = {"n_max": 5, "n_steps": 10, "targets": [1]}
    x, y = generate(1000, RECIPE["train_data"]["seed"], **task)
    x_test, y_test = generate(1000, RECIPE["test_data"]["seed"], **task)
    assert np.unique(np.concatenate([x, x_test])).tolist() == [0, 1, 2, 3]
    assert np.bincount(y, minlength=5).tolist() == [242, 251, 241, 266, 0]
    assert np.bincount(y_test, minlength=5).tolist() == [233, 247, 247, 273, 0]
    seen = {sequence.tobytes() for sequence in x}
    assert sum(sequence.tobytes() in seen for sequence in x_test) == 1


CORE = np.array([[3, 1, 0, 2], [2, 2, 3, 3]], np.uint8)
NO = NO_LABEL


@pytest.mark.parametrize(
    ("targets", "per_step", "labels"),
    [
        ([1], False, [1, 2]),
        ([0, 1], False, [0, 0]),  # 3 + 1 = 4, 2 + 2 = 4, both 0 modulo 4
        ([0, 2, 3], False, [1, 0]),  # 3 + 0 + 2 = 5, 2 + 3 + 3 = 8
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


@given(task=tasks, n_samples=sizes, seed=seeds, more=sizes, chunk=st.integers(1, 60))
def test_what_changes_nothing_else(
    task: dict[str, Any], n_samples: int, seed: int, more: int, chunk: int
) -> None:
    """Unmarked distractors differ in symbols only; more samples begin with the same.

    Drawing the digits in chunks, which limits the memory, changes no digit or label.
    """
    x, y = generate(n_samples, seed, **task)
    others = [
        generate(n_samples, seed, **task, marked=False),
        generate(n_samples + more, seed, **task),
    ]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sequences, "_CHUNK", chunk)
        others.append(generate(n_samples, seed, **task))
    for (other_x, other_y), expected in zip(others, [x % task["n_max"], x, x], strict=True):
        np.testing.assert_array_equal(other_x[:n_samples], expected)
        np.testing.assert_array_equal(other_y[:n_samples], y)


PADDED: dict[str, Any] = {"n_max": 5, "n_steps": 3, "targets": [1], "insert": 4, "min_insert": 1}


def test_each_sequence_has_its_own_number_of_distractors() -> None:
    """Every number of distractors occurs equally often; padding is on the left."""
    x, y = generate(4000, 7, **PADDED, per_step=True)
    is_pad, is_core = x == PAD, x < 4
    n_inserted = (~is_pad & ~is_core).sum(1)
    assert (is_pad[:, :-1] >= is_pad[:, 1:]).all()
    assert (x[~is_pad & ~is_core] >= 5).all()
    counts = np.bincount(n_inserted, minlength=5)
    assert counts[0] == 0
    assert np.abs(counts[1:] - 1000).max() < 5 * np.sqrt(750)
    digits, labels = generate(4000, 7, **{**PADDED, "insert": 0, "min_insert": None}, per_step=True)
    assert (x[is_core].reshape(-1, 3) == digits).all()
    assert (y[is_core].reshape(-1, 3) == labels).all()
    assert (y[~is_core] == NO_LABEL).all()


def test_padded_digits_are_at_random_places() -> None:
    """The digit is at each of the steps that are not padding equally often."""
    x, _ = generate(30_000, 3, **{**PADDED, "n_steps": 1, "targets": [0], "min_insert": 0})
    for n_pads in range(5):
        rows = x[(x == PAD).sum(1) == n_pads] < 4
        n_steps = 5 - n_pads
        expected = len(rows) / n_steps
        assert (rows[:, :n_pads].sum(0) == 0).all()
        assert np.abs(rows[:, n_pads:].sum(0) - expected).max() < 5 * np.sqrt(expected)
