"""Batches: which samples are learned at a time, in which order, and how many of their steps."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from vanilla_lstm.learning.batches import batch_lengths, shuffled_batches


@given(n=st.integers(1, 100), batch_size=st.integers(1, 100), seed=st.integers(0, 9))
def test_batches(n: int, batch_size: int, seed: int) -> None:
    """An epoch has each sample once, in full batches; only the last batch may end in padding."""
    epochs = shuffled_batches(n, batch_size, [seed])
    for epoch in (next(epochs), next(epochs)):
        assert epoch.shape == (-(-n // batch_size), batch_size)
        assert sorted(epoch.ravel()[:n]) == list(range(n))
        assert (epoch.ravel()[n:] == -1).all()


def test_each_epoch_has_its_order() -> None:
    """The order of samples changes with each epoch and seed; the same seed repeats all orders."""
    first, second = (shuffled_batches(50, 8, seed=[1]) for _ in range(2))
    other = shuffled_batches(50, 8, seed=[2])
    orders = [next(first).tolist() for _ in range(3)]
    assert orders == [next(second).tolist() for _ in range(3)]
    assert orders[0] != orders[1] != orders[2]
    assert orders[0] != next(other).tolist()


@given(
    least=st.integers(1, 50), longer=st.integers(0, 2000), n=st.integers(1, 99), seed=st.integers()
)
def test_batch_lengths(least: int, longer: int, n: int, seed: int) -> None:
    """Lengths stay within their bounds; without a minimum, every batch learns all steps."""
    n_steps, seeds = least + longer, [abs(seed)]
    lengths = batch_lengths(n, least, n_steps, np.random.default_rng(seeds))
    assert lengths.dtype == np.int32
    assert lengths.shape == (n,)
    assert least <= lengths.min() <= lengths.max() <= n_steps
    assert (batch_lengths(n, None, n_steps, np.random.default_rng(seeds)) == n_steps).all()


def test_batch_lengths_are_log_uniform() -> None:
    """Half of the batches learn all steps; of the rest, as many learn 2 to 15 as 16 to 127."""
    lengths = batch_lengths(100_000, 2, 127, np.random.default_rng(0))
    # Standard deviations of the two counts: 158 and 112.
    assert abs((lengths < 127).sum() - 50_000) < 700
    assert abs((lengths < 16).sum() - 25_000) < 500
