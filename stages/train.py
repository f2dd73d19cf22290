"""Stage `train`: params.yaml, data/train.npz -> data/model.keras, data/training.csv."""

from vanilla_lstm import stage
from vanilla_lstm.artifacts import MODEL, TRAIN_DATA, TRAINING, read_dataset, write_csv
from vanilla_lstm.evaluation import Epoch
from vanilla_lstm.params import PARAMS, read_params
from vanilla_lstm.progress import Progress


def main() -> None:
    """Train a model, recording the training in MLflow while it runs."""
    params, params_text = read_params()
    dataset = read_dataset(TRAIN_DATA)

    # Slow to import, so that mistakes in the files above are told at once.
    from vanilla_lstm import tracking
    from vanilla_lstm.store import Store

    store = Store()  # before TensorFlow: a store that is not there is told within seconds
    from vanilla_lstm import recipe
    from vanilla_lstm.model import summary
    from vanilla_lstm.model_file import write_model

    model = recipe.build(dataset, params.model, params.train)
    n_epochs = sum(phase.epochs for phase in recipe.phases(dataset, params.train))
    data = tracking.DataFile(TRAIN_DATA, stage.md5(TRAIN_DATA), dataset.sections, dataset.x.shape)
    sections = {"model": params.model, "train": params.train}
    print(f"training {model.count_params():,} parameters on {len(dataset.x)} sequences", flush=True)
    with (
        tracking.training_run(store, sections, params_text, data, summary(model)) as run,
        Progress(n_epochs) as progress,
    ):

        def on_epochs(epochs: list[Epoch]) -> None:
            stage.check_wanted()
            run.log_epochs(epochs)
            progress.update(epochs)

        history = recipe.train(model, dataset, params.train, on_epochs)
        write_model(MODEL, model)
        rows = ((i, *epoch) for i, epoch in enumerate(history, start=1))
        write_csv(TRAINING, ("epoch", *Epoch._fields), rows)
        run.finish(stage.md5(MODEL), model.output_shape)


if __name__ == "__main__":
    stage.run(main, reads=[PARAMS, TRAIN_DATA])
