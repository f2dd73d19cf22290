"""Loss and accuracy of a model's probabilities."""

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from vanilla_lstm.task.sequences import NO_LABEL, UInt8Array

_EPSILON = 1e-7  # as in Keras: a probability of 0 gives a large loss, not an infinite one


class Epoch(NamedTuple):
    """The result of one epoch; losses and accuracies are averages as in `Evaluation`."""

    epoch: int
    """Its number, from 1."""
    n_steps: int
    """How many steps of the sequences were trained on."""
    loss: float
    accuracy: float
    val_loss: float
    val_accuracy: float


class Evaluation(NamedTuple):
    """The result on a data set; a sequence is correct if all of its labels are predicted."""

    loss: float
    """Categorical cross-entropy in nats, averaged over sequences."""
    accuracy: float
    """The fraction of sequences that are correct."""
    correctly_classified: int
    n_samples: int


def evaluate(probabilities: npt.NDArray[np.float32], y: UInt8Array) -> Evaluation:
    """Measure probabilities against labels.

    Probabilities are float32 `[n_samples, n_classes]` and labels uint8 `[n_samples]`; with one
    label per step they are `[n_samples, n_steps, n_classes]` and `[n_samples, n_steps]`.
    """
    labelled = y != NO_LABEL
    labels = np.where(labelled, y, 0)
    chosen = np.take_along_axis(probabilities, labels[..., None], -1)[..., 0]
    losses = -np.log(np.clip(chosen.astype(np.float64), _EPSILON, 1 - _EPSILON))
    right = (probabilities.argmax(-1) == labels) | ~labelled
    per_sample = (len(y), -1)
    counts = labelled.reshape(per_sample).sum(1)
    losses = np.where(labelled, losses, 0).reshape(per_sample).sum(1) / counts
    n_correct = int(right.reshape(per_sample).all(1).sum())
    return Evaluation(significant(losses.mean()), n_correct / len(y), n_correct, len(y))


def actual_and_predicted(
    probabilities: npt.NDArray[np.float32], y: UInt8Array
) -> npt.NDArray[np.integer[Any]]:
    """Return `[n_labels, 2]`, one row per label: the label and its prediction."""
    labelled = y != NO_LABEL
    return np.stack([y[labelled], probabilities.argmax(-1)[labelled]], axis=1)


def significant(value: float) -> float:
    """Round to six significant digits: float32 carries no more."""
    return float(f"{value:.6g}")
