"""Batches: which samples a model learns at a time, and how many of their steps."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

Indices = npt.NDArray[np.int32]


def batches(order: npt.NDArray[np.integer[Any]], batch_size: int) -> Indices:
    """Cut an order of samples into batches, int32 `[n_batches, batch_size]`, padded with -1."""
    n_batches = -(-len(order) // batch_size)
    padded = np.full(n_batches * batch_size, -1, np.int32)
    padded[: len(order)] = order
    return padded.reshape(n_batches, batch_size)


def shuffled_batches(n_samples: int, batch_size: int, seed: Sequence[int]) -> Iterator[Indices]:
    """Yield the batches of one epoch after another, shuffled anew for each."""
    rng = np.random.default_rng(seed)
    while True:
        yield batches(rng.permutation(np.arange(n_samples, dtype=np.int32)), batch_size)


def batch_lengths(
    n_batches: int, least: int | None, n_steps: int, rng: np.random.Generator
) -> Indices:
    """Draw how many steps each batch learns, int32 `[n_batches]`: all, or a beginning.

    All batches learn all steps if `least` is None. Otherwise about half of them learn only a number
    of first steps, log-uniform from `least` to `n_steps`: each doubling is equally likely.
    """
    lengths = np.full(n_batches, n_steps, np.int32)
    if least is not None:
        low, high = np.log([least, n_steps + 1])
        beginnings = np.exp(rng.uniform(low, high, n_batches)).astype(np.int32)
        lengths = np.where(rng.random(n_batches) < 0.5, beginnings, lengths)
    return lengths
