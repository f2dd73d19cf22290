"""Write files in tests as the stages write them."""

from pathlib import Path

from bridge.run.stage import Stage
from vanilla_lstm.task.artifacts import DataSet, dataset_bytes


def write_dataset(path: Path, dataset: DataSet) -> None:
    """Write a data set."""
    Stage([]).write(path, dataset_bytes(dataset))


def write_model(path: Path, model: object) -> None:
    """Write a model."""
    from vanilla_lstm.learning import model_file  # loads Keras

    with Stage([]).writing(path) as partial:
        model_file.write_model(partial, model)
