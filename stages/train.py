"""Stage `train`: data/train.npz -> data/model.keras, data/model_summary.txt, data/training.csv."""

from vanilla_lstm.task.artifacts import (
    MODEL,
    MODEL_SUMMARY,
    TRAIN_DATA,
    TRAINING,
    read_dataset,
    write_csv,
    write_text,
)
from vanilla_lstm.task.params import read_params


def main() -> None:
    """Train a model; the curve grows while it learns."""
    params = read_params()
    dataset = read_dataset(TRAIN_DATA)

    # TensorFlow takes seconds to load: what is wrong with the files above is reported before.
    from vanilla_lstm.learning.evaluation import Epoch
    from vanilla_lstm.learning.model import build_model, summary
    from vanilla_lstm.learning.model_file import write_model
    from vanilla_lstm.learning.progress import progress
    from vanilla_lstm.learning.training import fit

    padded = params.train.pads(dataset.own)
    model = build_model(dataset.data, params.model, params.train.seed, padded)
    write_text(MODEL_SUMMARY, summary(model))
    print(f"training {model.count_params():,} parameters on {len(dataset.x)} sequences", flush=True)
    epochs = fit(model, dataset.x, dataset.y, params.train)
    write_csv(TRAINING, Epoch._fields, progress(epochs, params.train.n_epochs))
    write_model(MODEL, model)


if __name__ == "__main__":
    main()
