"""Stage `evaluate`: data/model.keras, data/test.npz -> data/metrics.json, data/predictions.csv."""

from vanilla_lstm import artifacts, stage
from vanilla_lstm.artifacts import MODEL, TEST_DATA
from vanilla_lstm.evaluation import actual_and_predicted, evaluate
from vanilla_lstm.params import PARAMS, read_params


def main() -> None:
    """Evaluate the model on the test data, and add the result to MLflow."""
    params, params_text = read_params()
    dataset = artifacts.read_dataset(TEST_DATA)

    # Slow to import, so that mistakes in the files above are told at once.
    from vanilla_lstm import tracking
    from vanilla_lstm.store import Store

    store = Store()
    from vanilla_lstm.model import predict, summary
    from vanilla_lstm.model_file import check_fit, read_model
    from vanilla_lstm.plots import confusion_matrix

    model = read_model(MODEL)
    check_fit(MODEL, model, dataset.sequences)
    probabilities = predict(model, dataset.x, params.evaluate.batch_size)
    result = evaluate(probabilities, dataset.y)
    pairs = actual_and_predicted(probabilities, dataset.y)
    artifacts.write_json(artifacts.METRICS, result._asdict())
    artifacts.write_csv(artifacts.PREDICTIONS, ("actual", "predicted"), pairs.tolist())
    run_id = tracking.record_evaluation(
        store,
        result,
        dataset=dataset,
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
