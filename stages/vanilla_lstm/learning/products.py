"""Matrix products that every processor sums in the same order.

The CPU's kernels cut a long contraction into blocks whose length depends on the processor's caches.
The cuts decide the order of additions and so the last bits. Contractions up to `LONGEST` stay
whole, on one thread; longer ones are cut here into blocks of that length.
"""

from typing import Any

from vanilla_lstm.learning.backend import tf

LONGEST = 128
"""Processors with 32 KiB of first-level cache were first seen to cut at a length of 408."""

_FEW = 8  # more blocks than this become a loop


@tf.custom_gradient  # type: ignore[untyped-decorator]
def product(a: Any, b: Any) -> Any:
    """Return `a @ b` for `[m, k]` and `[k, n]`; the gradient's contractions are cut as well."""

    def gradient(d: Any) -> tuple[Any, Any]:
        return contract(d, tf.transpose(b)), contract(tf.transpose(a), d)

    return contract(a, b), gradient


def contract(a: Any, b: Any) -> Any:
    """Return `a @ b` for `[m, k]` and `[k, n]`, without a custom gradient."""
    length = a.shape[1]
    if length is not None and length <= LONGEST:
        return tf.matmul(a, b)
    if length is not None and length <= _FEW * LONGEST:
        blocks = [slice(i, i + LONGEST) for i in range(0, length, LONGEST)]
        return tf.add_n([tf.matmul(a[:, block], b[block]) for block in blocks])
    m, length, n = tf.shape(a)[0], tf.shape(a)[1], tf.shape(b)[1]
    n_blocks = -(-length // LONGEST)
    missing = n_blocks * LONGEST - length
    a = tf.reshape(tf.pad(a, [[0, 0], [0, missing]]), [m, n_blocks, LONGEST])
    a = tf.transpose(a, [1, 0, 2])
    b = tf.reshape(tf.pad(b, [[0, missing], [0, 0]]), [n_blocks, LONGEST, n])
    # A loop: XLA sums a batched product in an order that depends on the number of cores.
    _, total = tf.while_loop(
        lambda i, _: i < n_blocks,
        lambda i, total: (i + 1, total + tf.matmul(a[i], b[i])),
        (0, tf.zeros([m, n], a.dtype)),
    )
    return total
