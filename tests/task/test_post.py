"""The post's data are reproduced, and what docs/POST.md says about them is true."""

from typing import Any

import numpy as np

from support.sections import RECIPE
from vanilla_lstm.task.sequences import generate


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


def test_the_posts_test_data_depend_on_the_training() -> None:
    """In the post's code, one shuffle more in the training changes the test set."""

    def test_set(shuffles: int) -> Any:
        generator = np.random.RandomState(1234)
        generator.randint(0, 4, 10_000)
        for _ in range(shuffles):
            generator.permutation(800)
        return generator.randint(0, 4, (1000, 10))

    assert (test_set(0) == test_set(0)).all()
    assert (test_set(0) == test_set(1)).mean() < 0.3
