"""The post's training, written by hand in JAX: each epoch is one compiled program."""

import sys
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

N_MAX, N_STEPS, N_SAMPLES, EPOCHS, BATCH, UNITS = 5, 10, 1000, int(sys.argv[1]), 32, 25

np.random.seed(1234)
digits = np.random.randint(0, N_MAX - 1, N_SAMPLES * N_STEPS).reshape(N_SAMPLES, N_STEPS)
n_train = int(N_SAMPLES * 0.8)
optimizer = optax.adam(1e-3, eps=1e-7)


def logits_of(weights: Any, digits: Any) -> Any:
    x = jax.nn.one_hot(digits, N_MAX)
    inputs = jnp.swapaxes(x, 0, 1) @ weights["w"] + weights["b"]

    def step(carry: Any, z: Any) -> Any:
        h, c = carry
        i, f, g, o = jnp.split(z + h @ weights["u"], 4, axis=1)
        c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        h = jax.nn.sigmoid(o) * jnp.tanh(c)
        return (h, c), None

    zeros = jnp.zeros((len(digits), UNITS))
    (h, _), _ = jax.lax.scan(step, (zeros, zeros), inputs)
    return h @ weights["v"] + weights["a"]


def measures(weights: Any, digits: Any) -> Any:
    logits, labels = logits_of(weights, digits), digits[:, 1]
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    return losses.mean(), (logits.argmax(1) == labels).mean()


def run_epoch(weights: Any, state: Any, order: Any, train: Any, validation: Any) -> Any:
    def update(carry: Any, batch: Any) -> Any:
        weights, state = carry
        result, gradient = jax.value_and_grad(measures, has_aux=True)(weights, train[batch])
        change, state = optimizer.update(gradient, state)
        return (optax.apply_updates(weights, change), state), jnp.stack(result)

    (weights, state), rows = jax.lax.scan(update, (weights, state), order)
    return weights, state, rows.mean(0), jnp.stack(measures(weights, validation))


started = time.perf_counter()
epoch = jax.jit(run_epoch)
rng = np.random.default_rng(1234)
orthogonal = np.linalg.qr(rng.normal(size=(4 * UNITS, UNITS)))[0].T


def glorot(rows: int, columns: int) -> Any:
    limit = (6 / (rows + columns)) ** 0.5
    return rng.uniform(-limit, limit, (rows, columns)).astype(np.float32)


weights = {
    "w": glorot(N_MAX, 4 * UNITS),
    "u": orthogonal.astype(np.float32),
    "b": np.repeat([0, 1, 0, 0], UNITS).astype(np.float32),
    "v": glorot(UNITS, N_MAX),
    "a": np.zeros(N_MAX, np.float32),
}
state = optimizer.init(weights)
train, validation = jnp.asarray(digits[:n_train]), jnp.asarray(digits[n_train:])
for number in range(EPOCHS):
    order = rng.permutation(n_train).reshape(-1, BATCH)
    weights, state, trained, validated = epoch(weights, state, order, train, validation)
    print(number + 1, *map(float, [*trained, *validated]))
print(time.perf_counter() - started)
