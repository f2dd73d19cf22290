"""The tasks: examples computed by hand, and properties that hold for all tasks."""

import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sections import data_params
from vanilla_lstm.task import sequences
from vanilla_lstm.task.sequences import NO_LABEL, generate, label


def test_the_posts_training_data() -> None:
    """The default params give the digits and labels of the post's own two lines."""
    state = np.random.get_state()
    np.random.seed(1234)
    digits = np.random.randint(0, 5 - 1, 1000 * 10).reshape(1000, 10, 1)
    np.random.set_state(state)
    x, y = generate(1000, 1234, n_max=5, n_steps=10, targets=[1])
    np.testing.assert_array_equal(x, digits[:, :, 0])
    np.testing.assert_array_equal(y, digits[:, 1, 0])
    assert x.dtype == y.dtype == np.uint8


def test_the_global_generator_is_untouched() -> None:
    """Other code that draws numbers in the same process gets the same numbers."""
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
    """Labels are the sums modulo n_max - 1, as computed by hand."""
    np.testing.assert_array_equal(label(CORE, targets, 5, per_step), labels)


def test_labels_of_the_largest_digits() -> None:
    """The largest n_max does not overflow the bytes that hold the digits."""
    core = np.full((1, 4), 125, np.uint8)
    assert label(core, [0, 1, 2, 3], 127, per_step=False).tolist() == [500 % 126]
    assert label(core, [0, 1, 2], 127, per_step=True).tolist() == [[NO, NO, 375 % 126, 375 % 126]]


def test_alphabet() -> None:
    """Marked distractors have separate symbols; unmarked ones need none."""
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
    """Without distractors the digits are NumPy's stream, and the labels follow from them."""
    task["insert"] = 0
    x, y = generate(n_samples, seed, **task)
    stream = np.random.RandomState(seed).randint(0, task["n_max"] - 1, n_samples * task["n_steps"])
    np.testing.assert_array_equal(x.ravel(), stream)
    np.testing.assert_array_equal(y, label(x, task["targets"], task["n_max"], task["per_step"]))


@given(task=tasks, n_samples=sizes, seed=seeds)
def test_inserting_keeps_digits_and_labels(task: dict[str, Any], n_samples: int, seed: int) -> None:
    """The digits keep their order and labels; a distractor has its own symbol and no label."""
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
    """Unmarked distractors are the same at the same places, but written in the digits' symbols."""
    x, y = generate(n_samples, seed, **task)
    unmarked_x, unmarked_y = generate(n_samples, seed, **task, marked=False)
    np.testing.assert_array_equal(unmarked_x, x % task["n_max"])
    np.testing.assert_array_equal(unmarked_y, y)


@given(task=tasks, n_samples=sizes, seed=seeds, chunk=st.integers(1, 60))
def test_chunks_do_not_show(task: dict[str, Any], n_samples: int, seed: int, chunk: int) -> None:
    """The number of digits drawn at a time limits the memory and changes no result."""
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
    """Each place holds a distractor equally often: 5 of 15, within five standard deviations."""
    x, _ = generate(3000, 7, n_max=5, n_steps=10, targets=[1], insert=5)
    share = (x >= 5).mean(0)
    assert np.abs(share - 1 / 3).max() < 5 * (1 / 3 * 2 / 3 / 3000) ** 0.5


@pytest.mark.parametrize("insert", [0, 5])
def test_speed(insert: int) -> None:
    """At least 20 million digits are drawn per CPU-second (here 40 to 130 million)."""
    n_samples = 200_000
    seconds = []
    for _ in range(3):
        started = time.thread_time()
        generate(n_samples, 1, n_max=5, n_steps=10, targets=[0, 1], insert=insert)
        seconds.append(time.thread_time() - started)
    assert n_samples * (10 + insert) / min(seconds) > 20e6
