"""Stage `train`: params.yaml, data/train.npz -> data/model.keras, data/training.csv."""

from vanilla_lstm import stage
from vanilla_lstm.artifacts import MODEL, TRAIN_DATA, TRAINING, read_dataset, write_csv
from vanilla_lstm.evaluation import Epoch
from vanilla_lstm.params import PARAMS, read_params
from vanilla_lstm.progress import progress


def main() -> None:
    """Train a model, recording the training in MLflow while it runs."""
    params, params_text = read_params()
    dataset = read_dataset(TRAIN_DATA)

    # Slow to import, so that mistakes in the files above are told at once.
    from vanilla_lstm import tracking
    from vanilla_lstm.store import Store

    store = Store()  # before TensorFlow: a store that is not there is told within seconds
    from vanilla_lstm.model import build_model, summary
    from vanilla_lstm.model_file import write_model
    from vanilla_lstm.training import fit, set_threads

    set_threads(params.train.batch_size, params.model.units)
    # The data says what it is: data and train_data are not this stage's params, but its input's.
    padded = dataset.padded or params.train.min_steps is not None
    model = build_model(dataset.data, params.model, params.train.seed, padded)
    sections = {"model": params.model, "train": params.train}
    print(f"training {model.count_params():,} parameters on {len(dataset.x)} sequences", flush=True)
    with (
        tracking.training_run(store, sections, params_text, dataset, summary(model)) as run,
        progress(params.train.n_epochs) as report,
    ):

        def on_epochs(epochs: list[Epoch]) -> None:
            stage.check_wanted()
            run.log_epochs(epochs)
            report(epochs)

        history = fit(model, dataset.x, dataset.y, params.train, on_epochs)
        write_model(MODEL, model)
        rows = ((i, *epoch) for i, epoch in enumerate(history, start=1))
        write_csv(TRAINING, ("epoch", *Epoch._fields), rows)
        run.finish(model.output_shape)


if __name__ == "__main__":
    stage.run(main, reads=[PARAMS, TRAIN_DATA])
