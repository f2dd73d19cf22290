"""`dvc-mlflow promote` refuses what it cannot compare, and leaves the registry as it is."""

import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from support.pipelines import Repository
from support.promoting import NAMED, measure, measured, promote, promoted, refused, row

pytestmark = [
    pytest.mark.pipeline,
    pytest.mark.filterwarnings("ignore"),  # warnings from MLflow
]


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """A pipeline whose model is measured on data that DVC tracks, for all tests: copy it."""
    return measured(tmp_path_factory.mktemp("made"))


@pytest.fixture
def project(made: Repository, tmp_path: Path) -> Repository:
    """A copy of that pipeline with its store."""
    return made.copy_with_rows(tmp_path / "project")


def test_rows_without_a_result(project: Repository) -> None:
    """Any row but a finished one with a result and a model is refused, with the reason."""
    (good,) = project.rows()
    client, experiment = project.client, good.info.experiment_id
    assert refused(project, "0" * 32).endswith("not found; check the run id")
    for wrong in ("x; touch file", "../x", "", "\x1b[31m"):
        assert refused(project, wrong).startswith("RUN must be a row's name")
    started = client.create_run(experiment).info.run_id
    assert refused(project, started) == "the row is RUNNING, not FINISHED"
    client.log_metric(started, "test/score", 9)
    client.set_terminated(started, "FAILED")
    assert refused(project, started) == "the row is FAILED, not FINISHED"
    client.set_terminated(started)
    assert refused(project, started) == "the row has no result of measure"
    client.set_tag(started, "dvc-mlflow.lock.measure", "x")
    client.log_metric(started, "test/loss", float("nan"))
    assert refused(project, started) == "the row has no test/loss"
    client.log_metric(started, "test/loss", 0, step=1)
    assert refused(project, started) == "the row does not say which test.txt it was measured on"
    client.log_inputs(started, good.inputs.dataset_inputs)
    assert refused(project, started).startswith("the row has no logged model; ")
    client.delete_run(good.info.run_id)
    assert refused(project, good) == "the row is in MLflow's trash"
    shutil.rmtree(project.path / ".dvc")
    assert "not inside of a DVC repository" in refused(project, good)


def test_champion_without_a_row(project: Repository) -> None:
    """If the champion's scores are gone, one line says what to do."""
    (first,) = project.rows()
    promoted(project, first)
    better = row(project, a=2)
    project.client.set_model_version_tag("clf", "1", "dvc.row", "0" * 32)
    cure = "`gto deprecate clf v0.0.1 champion` to choose anew (v0.0.1)"
    assert refused(project, better) == f"the champion's row {'0' * 32} is gone; {cure}"
    project.client.set_model_version_tag("clf", "1", "dvc.row", first.info.run_id)
    text = (project.path / "dvc.yaml").read_text()
    project.write({"dvc.yaml": text.replace('["test/score", "-test/loss"]', '["extra"]')})
    project.client.log_metric(better.info.run_id, "extra", 1)
    assert refused(project, better) == (
        f"the champion's row {first.info.run_name} has no extra (v0.0.1)"
    )


@pytest.mark.parametrize(
    ("metrics", "line"),
    [
        ([], "dvc.yaml names no metric to compare; add `promote: [-test/loss]` to meta.mlflow"),
        (["metrics.test/loss"], "dvc.yaml: stages.measure.meta.mlflow.promote: must be a list of"),
    ],
)
def test_no_metric_is_named(project: Repository, metrics: list[str], line: str) -> None:
    """If dvc.yaml does not say what better means, the error says how to."""
    stages = {**NAMED, "measure": measure(promote=metrics)}
    project.write({"dvc.yaml": json.dumps({"stages": stages})})
    assert refused(project, project.rows()[0]).startswith(line)


ODD = ["../../x", "\x1b[31m'", "a/b:c", "x'; DROP TABLE runs; --", "models:/x@champion"]


@pytest.mark.parametrize("name", ODD)
def test_hostile_names(project: Repository, name: str, tmp_path: Path) -> None:
    """Hostile names of experiments, tags and data sets run nothing and lead nowhere."""
    (run,) = project.rows()
    with closing(sqlite3.connect(project.path / "mlflow.db")) as store, store:
        store.execute("UPDATE experiments SET name = ? WHERE experiment_id = 1", [name])
        store.execute("UPDATE logged_models SET artifact_location = ?", [f"file://{tmp_path}/x"])
        store.execute("UPDATE logged_models SET name = ?", [name])
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if is_users(path)}
    for _ in range(2):
        said = promote(project, run.info.run_id)
        assert (said.out + said.error).count("\n") in (1, 3)
        assert (said.out + said.error).replace("\n", "").isprintable()
    project.client.set_tag(run.info.run_id, "dvc-mlflow.lock.measure", name)
    with closing(sqlite3.connect(project.path / "mlflow.db")) as store, store:
        store.execute("UPDATE model_version_tags SET value = ?", [name])
        store.execute("UPDATE datasets SET digest = ?", [name[:36]])
    said = promote(project, run.info.run_id)
    assert (said.status, said.error.count("\n")) == (1, 1)
    assert said.error.replace("\n", "").isprintable()
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if is_users(path)} == before


def is_users(path: Path) -> bool:
    """Whether a file belongs to the user, not to git, DVC or MLflow."""
    return path.is_file() and not {".dvc", ".git", "mlflow.db", "mlartifacts"} & {*path.parts}
