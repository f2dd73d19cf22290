"""Stage `evaluate`: data/model.keras, data/test.npz -> data/metrics.json, data/predictions.csv."""

from functools import partial
from pathlib import Path

from bridge.run import Stage, run
from bridge.run.params import PARAMS
from vanilla_lstm.learning.evaluation import actual_and_predicted, evaluate
from vanilla_lstm.plots import confusion_matrix
from vanilla_lstm.project import COLUMNS, EXPERIMENT
from vanilla_lstm.task.artifacts import (
    METRICS,
    MODEL,
    PREDICTIONS,
    TEST_DATA,
    csv_bytes,
    json_bytes,
    read_dataset,
)
from vanilla_lstm.task.memory import check_memory
from vanilla_lstm.task.params import as_mapping, read_params


def main(stage: Stage) -> None:
    """Evaluate the model on the test data, and add the result to MLflow."""
    params = read_params()
    check_memory(params)
    dataset = read_dataset(TEST_DATA)

    # Slow imports come last, so that mistakes in the files above are reported at once.
    from bridge.record import Data, Store, evaluation

    store = Store(EXPERIMENT, COLUMNS)
    from vanilla_lstm.learning.model import predict
    from vanilla_lstm.learning.model_file import check_fit, read_model
    from vanilla_lstm.serving import save

    model = read_model(MODEL)
    check_fit(MODEL, model, dataset.sequences)
    probabilities = predict(model, dataset.x, params.evaluate.batch_size)
    result = evaluate(probabilities, dataset.y)
    pairs = actual_and_predicted(probabilities, dataset.y)
    stage.write(METRICS, json_bytes(result._asdict()))
    stage.write(PREDICTIONS, csv_bytes(("actual", "predicted"), pairs.tolist()))
    run_id = evaluation(
        store,
        stage,
        MODEL,
        Data(TEST_DATA, dataset.profile),
        params=as_mapping({dataset.own.name: dataset.own, "evaluate": params.evaluate}),
        metrics=result._asdict(),
        serve=partial(save, output_shape=model.output_shape),
        texts={"confusion_matrix.html": confusion_matrix(pairs, dataset.data.n_max)},
        files=[METRICS, PREDICTIONS],
    )
    print(f"Accuracy: {result.accuracy:.4f}")
    print(f"Correctly classified: {result.correctly_classified} of {result.n_samples}")
    print(f"This model: {store.model_uri(run_id)}")
    print(f"This result: {store.url(run_id)}")
    print(f"All results: {store.url()}")
    if Path("dvc.yaml").exists():  # not in a folder of properties/
        print("Next: `make ui` shows them; `dvc exp run -S model.units=10` makes another")


if __name__ == "__main__":
    run(main, reads=[PARAMS, TEST_DATA, MODEL])
