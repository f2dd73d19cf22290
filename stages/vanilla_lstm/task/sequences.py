"""The tasks: sequences of digits, and the labels that a model learns from them.

Digits are drawn from `0 .. n_max - 2`. As in the post, NumPy's upper bound is exclusive, so the
one-hot code has a class that never occurs. An example with `n_max=5, n_steps=4, targets=[0, 1]`:

    digits           3 1 0 2        label (3 + 1) % 4 = 0
    insert=2         3 7 1 0 5 2    the same label; 7 and 5 are the distractors 2 and 0, written
                                    in a second set of symbols, `n_max .. 2 * n_max - 2`
    min_insert=0    - - 3 7 1 0 2   with insert=3: this sequence drew one distractor out of 0 to 3,
                                    and is padded on the left with `PAD`
    per_step=True    3 1 0 2        labels - 0 1 2: `targets` are lags, so each digit is added to
                                    the one before it, and the first step has no label
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

UInt8Array = npt.NDArray[np.uint8]

NO_LABEL = 255
"""In `y`, for a step without a label."""

PAD = 255
"""In `x`, before a sequence that is shorter than others in its data set."""

_CHUNK = 1 << 20  # digits drawn at a time; bounds the memory of NumPy's 64-bit draws


def generate(
    n_samples: int,
    seed: int,
    *,
    n_max: int,
    n_steps: int,
    targets: Sequence[int],
    insert: int = 0,
    min_insert: int | None = None,
    marked: bool = True,
    per_step: bool = False,
) -> tuple[UInt8Array, UInt8Array]:
    """Draw a data set.

    Returns `x` uint8 `[n_samples, n_steps + insert]` and `y` uint8 `[n_samples]`. With `per_step`
    `y` is `[n_samples, n_steps + insert]`, with `NO_LABEL` where a step has no label. With
    `min_insert` each sequence draws its number of distractors uniformly from `min_insert .. insert`
    and has `PAD` before its first step.

    The digits are those of `np.random.seed(seed); np.random.randint(0, n_max - 1, …)`, drawn
    without touching the global generator. Distractors and their places come from separate streams,
    so the digits are the same whatever is inserted.
    """
    length = n_steps + insert
    digits = np.random.RandomState(seed)
    places, distractors, amounts = (np.random.default_rng([seed, i]) for i in (1, 2, 3))
    x = np.empty((n_samples, length), np.uint8)
    y = np.empty((n_samples, length) if per_step else n_samples, np.uint8)
    rows = max(1, _CHUNK // length)
    for start in range(0, n_samples, rows):
        part = slice(start, min(start + rows, n_samples))
        n_rows = part.stop - start
        core = digits.randint(0, n_max - 1, (n_rows, n_steps)).astype(np.uint8)
        labels = label(core, targets, n_max, per_step)
        if insert:
            least = insert if min_insert is None else min_insert
            n_pads = insert - amounts.integers(least, insert, n_rows, endpoint=True)
            is_core = _choose(places.random((n_rows, length)), n_steps, n_pads)
            x[part] = distractors.integers(0, n_max - 1, (n_rows, length))
            x[part] += n_max if marked else 0
            x[part][np.arange(length) < n_pads[:, None]] = PAD
            x[part][is_core] = core.ravel()
            if per_step:
                y[part] = NO_LABEL
                y[part][is_core] = labels.ravel()
            else:
                y[part] = labels
        else:
            x[part], y[part] = core, labels
    return x, y


def _choose(
    uniform: npt.NDArray[np.float64], n_chosen: int, first: npt.NDArray[np.int64]
) -> npt.NDArray[np.bool_]:
    """Choose `n_chosen` steps of each row from the step `first[row]` on, all equally likely.

    Each step in turn is chosen with probability (steps still to choose) / (steps left).
    """
    n_rows, length = uniform.shape
    chosen = np.empty((n_rows, length), bool)
    missing = np.full(n_rows, n_chosen)
    for step in range(length):
        chosen[:, step] = (uniform[:, step] * (length - step) < missing) & (step >= first)
        missing -= chosen[:, step]
    return chosen


def label(core: UInt8Array, targets: Sequence[int], n_max: int, per_step: bool) -> UInt8Array:
    """Return the labels of core digits `[n_samples, n_steps]`: sums modulo `n_max - 1`.

    Without `per_step`, `[n_samples]`: the sum of the digits at the steps `targets`. With it,
    `[n_samples, n_steps]`: for each step the sum of the digits `targets` steps before it, or
    `NO_LABEL` if one of them would lie before the sequence.
    """
    n_samples, n_steps = core.shape
    if per_step:
        first = max(targets)
        labels = np.full((n_samples, n_steps), NO_LABEL, np.uint8)
        labels[:, first:] = 0
        for lag in targets:
            # n_max <= 127 keeps a sum of two digits within uint8.
            labels[:, first:] += core[:, first - lag : n_steps - lag]
            labels[:, first:] %= n_max - 1
        return labels
    total = np.zeros(n_samples, np.uint8)
    for step in targets:
        total = (total + core[:, step]) % (n_max - 1)
    return total
