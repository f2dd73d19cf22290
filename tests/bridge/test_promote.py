"""`make promote`: from a row to the champion that is served."""

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from clone import Clone, Done

pytestmark = [
    pytest.mark.pipeline,
    pytest.mark.filterwarnings("ignore"),  # what MLflow's client warns of in the test's process
]

NAME = "vanilla-lstm"


def promote(clone: Clone, run_id: str) -> Done:
    return clone.run("make", "-s", "-o", ".venv/run", "promote", f"RUN={run_id}", check=False)


def row(clone: Clone, client: MlflowClient, *overrides: str) -> Run:
    """Run the pipeline with overrides, and return its row."""
    clone.dvc("exp", "run", *(word for override in overrides for word in ("-S", override)))
    experiment = client.get_experiment_by_name(NAME)
    return client.search_runs([experiment.experiment_id])[0]


def test_promote(clone: Clone) -> None:
    """A row's model becomes the champion only if it is better on the same test data."""
    client = MlflowClient(f"sqlite:///{clone.path}/mlflow.db")

    def champion() -> tuple[str, str]:
        version = client.get_model_version_by_alias(NAME, "champion")
        return str(version.version), version.source

    first = row(clone, client)
    done = promote(clone, first.info.run_id)
    model = f"models:/{first.outputs.model_outputs[0].model_id}"
    assert f"models:/{NAME}@champion is version 1" in done.stdout, done.stderr
    assert champion() == ("1", model)

    same = promote(clone, first.info.run_id)
    assert same.returncode
    assert "not promoted; accuracy " in same.stderr
    assert "are not better than the champion's accuracy" in same.stderr
    assert "(version 1)" in same.stderr
    assert champion() == ("1", model)

    better = row(clone, client, "train.epochs=60", "train.learning_rate=0.01", "model.units=8")
    assert better.data.metrics["test/accuracy"] > first.data.metrics["test/accuracy"]
    assert promote(clone, better.info.run_id).returncode == 0
    assert champion() == ("2", f"models:/{better.outputs.model_outputs[0].model_id}")
    assert "accuracy" in promote(clone, first.info.run_id).stderr
    assert champion()[0] == "2"

    elsewhere = row(clone, client, "test_data.seed=9")
    done = promote(clone, elsewhere.info.run_id)
    assert f"its test data has the md5 {elsewhere.data.tags['test_data.md5']}" in done.stderr
    assert f"the champion's {better.data.tags['test_data.md5']}" in done.stderr
    assert champion()[0] == "2"


def test_nothing_to_promote(clone: Clone) -> None:
    """Anything but a row with a result gets a one-line error, and never reaches a shell."""
    unknown = promote(clone, "0123456789abcdef0123456789abcdef")
    assert unknown.returncode
    assert "0123456789abcdef0123456789abcdef" in unknown.stderr
    assert "Traceback" not in unknown.stderr
    client = MlflowClient(f"sqlite:///{clone.path}/mlflow.db")
    experiment = client.get_experiment_by_name(NAME)
    started = client.create_run(experiment.experiment_id).info.run_id
    assert "as the row has no result" in promote(clone, started).stderr
    assert promote(clone, "x; touch file").returncode
    assert not (clone.path / "file").exists()
