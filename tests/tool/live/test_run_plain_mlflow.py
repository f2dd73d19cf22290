"""What a script logs to MLflow by itself is in its stage's row."""

from pathlib import Path

import pytest

from support.live_runs import one
from support.pipelines import repository, train

pytestmark = [
    pytest.mark.pipeline,
    pytest.mark.versions,
    pytest.mark.filterwarnings("ignore"),  # warnings from MLflow
]


SCRIPT = """
import mlflow
with mlflow.start_run():
    mlflow.log_param("mine", 1)
    mlflow.log_param("rate", "theirs")
    mlflow.log_metric("score", 0.5, step=3)
    mlflow.log_text("text", "note.txt")
with mlflow.start_run(run_name="second"):
    mlflow.log_metric("score", 0.7)
open("out.txt", "w").write("1")
"""


@pytest.mark.rest
@pytest.mark.parametrize("first", [True, False], ids=["first", "adopted"])
def test_plain_mlflow(tmp_path: Path, first: bool) -> None:
    """A script's own MLflow calls land in the stage's row; its further runs are children."""
    meta = {"meta": {"mlflow": {"open": "first"}}} if first else {}
    stages = one("python script.py", deps=["script.py"], outs=["out.txt"], **meta)
    project = repository(tmp_path / "project", stages, files={"script.py": SCRIPT})
    project.dvc("repro", "-q")
    rows = project.rows()
    (row,) = [r for r in rows if "dvc-mlflow.lock.one" in r.data.tags]
    (child,) = [r for r in rows if r.info.run_id != row.info.run_id]
    assert row.data.params == {"mine": "1", "rate": "theirs"}
    assert row.data.metrics == {"score": 0.5}
    assert "note.txt" in project.artifacts(row)
    assert row.data.tags["mlflow.source.git.commit"] == project.git("rev-parse", "HEAD")
    assert child.data.tags["mlflow.parentRunId"] == row.info.run_id
    assert child.data.metrics == {"score": 0.7}
    project.dvc("repro", "-q", "-f")
    again = [r for r in project.rows() if r.data.tags.get("reproduces") == row.info.run_id]
    assert [r.data.params["mine"] for r in again] == ["1"]


def test_experiment_of_another_stage(tmp_path: Path) -> None:
    """A script's run is in the experiment of its row, which an earlier stage names."""
    script = 'import mlflow; mlflow.log_metric("mine", 1); open("out.txt", "w").write("1")'
    stages = {
        "train": {**train("raw.txt"), "meta": {"mlflow": {"experiment": "flowers"}}},
        **one("python script.py", deps=["script.py", "model.txt"], outs=["out.txt"]),
    }
    project = repository(tmp_path / "project", stages, files={"script.py": script})
    project.dvc("repro", "-q")
    (row,) = project.rows()
    assert row.data.metrics == {"mine": 1, "train/loss": 0.25}
    assert project.client.get_experiment(row.info.experiment_id).name == "flowers"


LOGGING = """
import mlflow
# chosen
mlflow.sklearn.autolog()
from sklearn.linear_model import LinearRegression
with mlflow.start_run():
    model = LinearRegression().fit([[0.0], [1.0]], [0.0, 1.0])
    mlflow.log_metric("mine", 2)
    mlflow.sklearn.log_model(model, name="again", serialization_format="pickle")
open("out.txt", "w").write("1")
"""


@pytest.mark.rest
@pytest.mark.parametrize("chosen", ["", 'mlflow.set_experiment("theirs")'])
def test_autolog_and_set_experiment(tmp_path: Path, chosen: str) -> None:
    """What autolog and log_model log is the stage's row, or its child in another experiment."""
    stages = one("python script.py", deps=["script.py"], outs=["out.txt"])
    script = LOGGING.replace("# chosen", chosen)
    project = repository(tmp_path / "project", stages, files={"script.py": script})
    project.dvc("repro", "-q")
    rows = project.rows()
    (row,) = [run for run in rows if "dvc-mlflow.lock.one" in run.data.tags]
    (logged,) = [run for run in rows if "fit_intercept" in run.data.params]
    assert project.client.get_experiment(row.info.experiment_id).name == "project"
    assert row.data.params["rate"] == "1"
    assert logged.data.metrics["mine"] == 2
    assert logged.outputs.model_outputs
    if chosen:
        assert project.client.get_experiment(logged.info.experiment_id).name == "theirs"
        assert logged.data.tags["mlflow.parentRunId"] == row.info.run_id
        assert project.rows(deleted=True) == []
    assert len(rows) == (2 if chosen else 1)
    assert project.record().out.startswith("nothing to do")
