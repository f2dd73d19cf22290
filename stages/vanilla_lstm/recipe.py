"""What the sections `model` and `train` of params.yaml mean: which model, trained in which way."""

from collections.abc import Callable

from vanilla_lstm.artifacts import DataSet
from vanilla_lstm.backend import keras
from vanilla_lstm.evaluation import Epoch
from vanilla_lstm.model import build_model
from vanilla_lstm.params import ModelParams, TrainParams
from vanilla_lstm.sequences import n_symbols
from vanilla_lstm.training import Phase, fit, set_threads


def build(dataset: DataSet, model: ModelParams, recipe: TrainParams) -> keras.Model:
    """Build the model for a training set; to be called before all else that TensorFlow does."""
    set_threads(recipe.batch_size, model.units)
    data = dataset.data
    return build_model(
        n_symbols=n_symbols(data.n_max, data.insert, data.marked),
        n_classes=data.n_max,
        mask_padding=dataset.padded,
        per_step=data.per_step,
        t_max=dataset.x.shape[1],
        seed=recipe.seed,
        **model.model_dump(),
    )


def phases(dataset: DataSet, recipe: TrainParams) -> list[Phase]:
    """Return the curriculum, and after it the training on whole sequences."""
    shorter = [Phase(p.n_steps, p.epochs, p.learning_rate) for p in recipe.curriculum]
    return [*shorter, Phase(dataset.x.shape[1], recipe.epochs, recipe.learning_rate)]


def train(
    model: keras.Model,
    dataset: DataSet,
    recipe: TrainParams,
    on_epochs: Callable[[list[Epoch]], None] = lambda epochs: None,
) -> list[Epoch]:
    """Train `model` in place; `on_epochs` hears of each chunk of epochs when it ends."""
    return fit(
        model,
        dataset.x,
        dataset.y,
        phases(dataset, recipe),
        batch_size=recipe.batch_size,
        validation_split=recipe.validation_split,
        seed=recipe.seed,
        clipnorm=recipe.clipnorm,
        stop_at_accuracy=recipe.stop_at_accuracy,
        keep=recipe.keep,
        on_epochs=on_epochs,
    )
