"""Stage `evaluate`: data/model.keras, data/test.npz -> data/metrics.json and two views of it.

data/predictions.csv has the actual and the predicted label of each sequence, and
data/confusion_matrix.html counts them.
"""

from vanilla_lstm.task.artifacts import (
    CONFUSION_MATRIX,
    METRICS,
    MODEL,
    PREDICTIONS,
    TEST_DATA,
    read_dataset,
    write_csv,
    write_json,
    write_text,
)
from vanilla_lstm.task.params import read_params


def main() -> None:
    """Evaluate the model on the test data."""
    params = read_params()
    dataset = read_dataset(TEST_DATA)

    # TensorFlow takes seconds to load: what is wrong with the files above is reported before.
    from vanilla_lstm.learning.evaluation import actual_and_predicted, evaluate
    from vanilla_lstm.learning.model import predict
    from vanilla_lstm.learning.model_file import read_model
    from vanilla_lstm.learning.plots import confusion_matrix

    model = read_model(MODEL, dataset.sequences)
    probabilities = predict(model, dataset.x, params.evaluate.batch_size)
    result = evaluate(probabilities, dataset.y)
    pairs = actual_and_predicted(probabilities, dataset.y)
    write_json(METRICS, result._asdict())
    write_csv(PREDICTIONS, ("actual", "predicted"), pairs.tolist())
    write_text(CONFUSION_MATRIX, confusion_matrix(pairs, dataset.data.n_max))
    print(f"Accuracy: {result.accuracy:.4f}")
    print(f"Correctly classified: {result.correctly_classified} of {result.n_samples}")


if __name__ == "__main__":
    main()
