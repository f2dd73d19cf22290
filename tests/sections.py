"""The sections of params.yaml that the post's recipe has, with some of their values changed."""

from typing import Any

from vanilla_lstm.task.params import DataParams, ModelParams, TrainParams


def data_params(**values: Any) -> DataParams:
    """Return the section `data`."""
    post = DataParams(n_max=5, n_steps=10, targets=(1,), insert=0, marked=True, per_step=False)
    return post.model_copy(update=values)


def model_params(**values: Any) -> ModelParams:
    """Return the section `model`."""
    return ModelParams(cell="lstm", units=25, forget_bias="one", cell_noise=0.0).model_copy(
        update=values
    )


def train_params(**values: Any) -> TrainParams:
    """Return the section `train`."""
    post = TrainParams(
        epochs=250,
        batch_size=32,
        learning_rate=0.001,
        validation_split=0.2,
        seed=1234,
        clipnorm=None,
        keep="last",
        curriculum=(),
        min_steps=None,
        stop_at_accuracy=None,
    )
    return post.model_copy(update=values)
