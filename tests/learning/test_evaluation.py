"""Loss and accuracy equal values computed by hand."""

import math

import numpy as np

from vanilla_lstm.learning.evaluation import actual_and_predicted, evaluate, significant
from vanilla_lstm.task.sequences import NO_LABEL

PROBABILITIES = np.array([[0.5, 0.25, 0.25], [0.1, 0.1, 0.8], [0.25, 0.5, 0.25]], np.float32)


def test_one_label() -> None:
    """Loss is the mean of -log p(label); accuracy is the share of correct predictions."""
    y = np.array([0, 2, 2], np.uint8)
    result = evaluate(PROBABILITIES, y)
    assert result.loss == significant((math.log(2) - math.log(0.8) + math.log(4)) / 3)
    assert result.accuracy == 2 / 3
    assert result.correctly_classified == 2
    assert result.n_samples == 3
    assert actual_and_predicted(PROBABILITIES, y).tolist() == [[0, 0], [2, 2], [2, 1]]


def test_one_label_per_step() -> None:
    """A sequence counts once: it is right if all its labels are; its loss is the mean over them."""
    probabilities = np.stack([PROBABILITIES, PROBABILITIES[[2, 0, 1]]])
    y = np.array([[0, 2, 2], [NO_LABEL, 0, 2]], np.uint8)
    result = evaluate(probabilities, y)
    first = (math.log(2) - math.log(0.8) + math.log(4)) / 3
    second = (math.log(2) - math.log(0.8)) / 2
    assert result.loss == significant((first + second) / 2)
    assert result.correctly_classified == 1
    assert result.accuracy == 0.5
    assert result.n_samples == 2
    pairs = [[0, 0], [2, 2], [2, 1], [0, 0], [2, 2]]
    assert actual_and_predicted(probabilities, y).tolist() == pairs


def test_a_certain_mistake_has_a_finite_loss() -> None:
    """A probability of 0 counts as 1e-7, as in Keras, so the loss stays a number."""
    result = evaluate(np.array([[1.0, 0.0]], np.float32), np.array([1], np.uint8))
    assert result.loss == significant(-math.log(1e-7))


def test_significant() -> None:
    """Results keep six significant digits, as many as float32 carries."""
    for value, rounded in [(0.98750001192, 0.9875), (1 / 3, 0.333333), (1234567.0, 1234570.0)]:
        assert significant(value) == rounded
