"""Stage `train`: params.yaml, data/train.npz -> data/model.keras, data/training.csv."""

from functools import partial
from itertools import count

from bridge.run import Stage, run
from bridge.run.params import PARAMS
from vanilla_lstm.learning.evaluation import Epoch
from vanilla_lstm.progress import progress
from vanilla_lstm.project import COLUMNS, CURVES, EXPERIMENT
from vanilla_lstm.task.artifacts import MODEL, TRAIN_DATA, TRAINING, csv_bytes, read_dataset
from vanilla_lstm.task.memory import check_memory
from vanilla_lstm.task.params import as_mapping, read_params


def main(stage: Stage) -> None:
    """Train a model, recording the training in MLflow while it runs."""
    params = read_params()
    check_memory(params)
    dataset = read_dataset(TRAIN_DATA)

    # Slow imports come last, so that mistakes in the files above are reported at once.
    from bridge.record import Data, Store, training

    store = Store(EXPERIMENT, COLUMNS)  # before TensorFlow, to report a missing store in seconds
    from vanilla_lstm.learning.model import build_model, summary
    from vanilla_lstm.learning.model_file import write_model
    from vanilla_lstm.learning.training import fit, set_threads
    from vanilla_lstm.serving import save

    set_threads(params.train.batch_size, params.model.units)
    # The data set carries its params: data and train_data are the input's, not this stage's.
    model = build_model(
        dataset.data, params.model, params.train.seed, params.train.pads(dataset.own)
    )
    print(f"training {model.count_params():,} parameters on {len(dataset.x)} sequences", flush=True)
    with (
        training(
            store,
            stage,
            MODEL,
            Data(TRAIN_DATA, dataset.profile),
            params=as_mapping({**dataset.sections, "model": params.model, "train": params.train}),
            serve=partial(save, output_shape=model.output_shape),
            texts={"model_summary.txt": summary(model)},
            files=[TRAINING],
        ) as row,
        progress(params.train.n_epochs) as report,
    ):
        steps = count(1)

        def on_epochs(epochs: list[Epoch]) -> None:
            for epoch in epochs:
                curves = {name: getattr(epoch, field) for name, field in CURVES.items()}
                row.log_metrics(curves, step=next(steps))
            report(epochs)

        history = fit(model, dataset.x, dataset.y, params.train, on_epochs)
        with stage.writing(MODEL) as path:
            write_model(path, model)
        rows = ((i, *epoch) for i, epoch in enumerate(history, start=1))
        stage.write(TRAINING, csv_bytes(("epoch", *Epoch._fields), rows))


if __name__ == "__main__":
    run(main, reads=[PARAMS, TRAIN_DATA])
