"""Stage `evaluate`: data/model.keras, data/test.npz -> data/metrics.json, data/predictions.csv."""

from vanilla_lstm import stage
from vanilla_lstm.artifacts import (
    METRICS,
    MODEL,
    PREDICTIONS,
    TEST_DATA,
    read_dataset,
    write_csv,
    write_json,
)
from vanilla_lstm.evaluation import actual_and_predicted, evaluate
from vanilla_lstm.params import PARAMS, read_params


def main() -> None:
    """Evaluate the model on the test data, and add the result to MLflow."""
    params, params_text = read_params()
    dataset = read_dataset(TEST_DATA)
    x, y = dataset.x, dataset.y

    # Slow to import, so that mistakes in the files above are told at once.
    from vanilla_lstm import tracking
    from vanilla_lstm.store import Store

    store = Store()
    from vanilla_lstm.model import predict, summary
    from vanilla_lstm.model_file import check_fit, read_model
    from vanilla_lstm.plots import confusion_matrix

    model = read_model(MODEL)
    check_fit(MODEL, model, dataset.sequences)
    probabilities = predict(model, x, params.evaluate.batch_size)
    result = evaluate(probabilities, y)
    pairs = actual_and_predicted(probabilities, y)
    write_json(METRICS, result._asdict())
    write_csv(PREDICTIONS, ("actual", "predicted"), pairs.tolist())
    run_id = tracking.record_evaluation(
        store,
        result,
        model_md5=stage.md5(MODEL),
        data=tracking.DataFile(TEST_DATA, stage.md5(TEST_DATA), dataset.sections, x.shape),
        sections={"evaluate": params.evaluate},
        params_text=params_text,
        summary=summary(model),
        output_shape=model.output_shape,
        confusion_matrix=confusion_matrix(pairs, dataset.data.n_max),
    )
    print(f"Accuracy: {result.accuracy:.4f}")
    print(f"Correctly classified: {result.correctly_classified} of {result.n_samples}")
    print(f"This result: {store.url(run_id)}")
    print(f"All results: {store.url()}")
    print("Next: `make ui` opens them, `dvc exp run -S model.units=10` makes another")


if __name__ == "__main__":
    stage.run(main, reads=[PARAMS, TEST_DATA, MODEL])
