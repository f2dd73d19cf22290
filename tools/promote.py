"""Make a row's model the champion: `make promote RUN=<the row's run id>`.

If the row is better than the champion's on the same test data, its model is registered and the
alias `champion` moves to it. Better means a higher accuracy, or the same and a lower loss.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "stages"))

from bridge.record.runs import TEST_DATA_MD5
from bridge.record.store import Store  # before MLflow, which it sets up
from bridge.run.errors import StageError
from vanilla_lstm.project import EXPERIMENT

# isort: split
import mlflow
from mlflow.entities import Run

ALIAS = "champion"
ROW = "row"
"""The tag of a version that names its row: rows of several test sets can share a model."""


def main(run_id: str) -> None:
    """Promote a row's model, or say why not."""
    try:
        store = Store(EXPERIMENT)
        client = store.client
        row = client.get_run(run_id)
        if row.info.status != "FINISHED" or TEST_DATA_MD5 not in row.data.tags:
            sys.exit(f"{run_id}: not promoted, as the row has no result")
        if not (address := store.model_uri(run_id)):
            sys.exit(f"{run_id}: not promoted, as the row has no logged model")
        registered = client.search_registered_models(f"name = '{EXPERIMENT}'")
        if number := next((model.aliases.get(ALIAS) for model in registered), None):
            version = client.get_model_version(EXPERIMENT, number)
            champion = client.get_run(version.tags.get(ROW, version.run_id))
            if why := _why_not(row, champion):
                sys.exit(f"{run_id}: not promoted; {why} (version {number})")
        version = mlflow.register_model(address, EXPERIMENT, tags={ROW: run_id})
        client.set_registered_model_alias(EXPERIMENT, ALIAS, version.version)
    except (StageError, mlflow.MlflowException) as error:
        sys.exit(f"{error}")
    print(f"models:/{EXPERIMENT}@{ALIAS} is version {version.version}, the model of row {run_id}")


def _why_not(row: Run, champion: Run) -> str:
    """Return why a row's model must not replace the champion, or ""."""
    data, theirs = row.data.tags[TEST_DATA_MD5], champion.data.tags.get(TEST_DATA_MD5)
    if data != theirs:
        return f"its test data has the md5 {data}, the champion's {theirs}"
    (accuracy, loss), (best, lowest) = _score(row), _score(champion)
    if (accuracy, -loss) <= (best, -lowest):
        had = f"accuracy {best:.4f} and loss {lowest:.4g}"
        return (
            f"accuracy {accuracy:.4f} and loss {loss:.4g} are not better than the champion's {had}"
        )
    return ""


def _score(run: Run) -> tuple[float, float]:
    return run.data.metrics["test/accuracy"], run.data.metrics["test/loss"]


if __name__ == "__main__":
    main(*sys.argv[1:])
