"""`dvc-mlflow promote` makes a row's model the champion only if it is better on the same data."""

import json
from pathlib import Path

import mlflow
import pytest

from pipelines import MODEL, SERVED, Repository, evaluate, makes, train
from promoting import measure, measured, project_of, promoted, refused, row
from servers import serving

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


def test_promote(project: Repository) -> None:
    """A row's model becomes the champion only if it is better on the same data.

    The second metric counts if the first is equal. Rows share a model, as none of the params is
    the training's, so the champion's scores are those of its row.
    """
    (first,) = project.rows()
    assert promoted(project, first) == "1"
    assert refused(project, first) == (
        "test/score 1.0 is not better than the champion's 1.0 (version 1)"
    )
    best = row(project, a=3, b=2)
    assert best.outputs.model_outputs[0].model_id == first.outputs.model_outputs[0].model_id
    assert promoted(project, best) == "2"
    lower = "test/score 2.0 is not better than the champion's 3.0 (version 2)"
    assert refused(project, row(project, a=2, b=0)) == lower
    higher = "test/loss 2.5 is not better than the champion's 2.0 (version 2)"
    assert refused(project, row(project, a=3, b=2.5)) == higher
    assert promoted(project, row(project, b=1.5)) == "3"
    other = row(project, rate=2, b=0)
    assert other.outputs.model_outputs[0].model_id != best.outputs.model_outputs[0].model_id
    assert promoted(project, other) == "4"
    assert not [*project.path.rglob("*.ran")]
    loaded = mlflow.pyfunc.load_model("models:/project@champion")
    assert loaded.predict([1]) == ["1\nrate: 2\n"]


def test_other_data(project: Repository) -> None:
    """A row that was measured on other data is never compared."""
    (first,) = project.rows()
    promoted(project, first)
    project.write({"test.txt": "2\n"})
    project.dvc("add", "-q", "test.txt")
    better = row(project, a=9)
    assert refused(project, better) == (
        "its data test.txt has the md5 26ab0db90d72e28ad0ba1e22ee510510, the champion's "
        "b026324c6904b2a9cb4b88d6d61c81d1 (version 1)"
    )
    project.client.delete_registered_model_alias("project", "champion")
    assert promoted(project, better) == "2"


@pytest.mark.rest
def test_what_counts_as_data(tmp_path: Path) -> None:
    """Data is whatever goes into the score besides the model, in DVC or in git."""
    stages = {
        "train": SERVED["train"],
        "questions": {"cmd": "cp test.txt q.txt", "deps": ["test.txt"], "outs": ["q.txt"]},
        "answer": {
            "cmd": "cat model.txt q.txt > answers.txt",
            "deps": ["model.txt", "q.txt"],
            "outs": ["answers.txt"],
        },
        "measure": measure("answers.txt", "labels.txt", data=["labels.txt"]),
    }
    project = project_of(tmp_path, stages)
    promoted(project, project.rows()[0])
    assert promoted(project, row(project, rate=2, a=2)) == "2"  # other answers of another model
    project.write({"labels.txt": "2\n"})
    assert refused(project, row(project, a=3)).startswith("its data labels.txt has the md5 ")
    project.write({"labels.txt": "1\n", "test.txt": "2\n"})
    project.dvc("add", "-q", "test.txt")
    assert refused(project, row(project, a=4)).startswith("its data q.txt has the md5 ")


def test_data_is_not_said(tmp_path: Path) -> None:
    """If dvc.yaml does not declare what a score was measured on, promotion is refused."""
    project = project_of(tmp_path, {"train": SERVED["train"], "measure": measure("labels.txt")})
    assert refused(project, project.rows()[0]) == (
        "dvc.yaml does not say which data measure reads; name data that git keeps in its "
        "meta.mlflow.data"
    )


@pytest.mark.rest
def test_training_that_measures(tmp_path: Path) -> None:
    """A training stage may measure its own model; then the data is the training data."""
    meta = {"mlflow": {"model": MODEL, "promote": ["-train/loss"]}}
    project = project_of(tmp_path, {"train": {**train("test.txt"), "meta": meta}})
    promoted(project, project.rows()[0])
    assert "train/loss 0.25 is not better" in refused(project, row(project, rate=2))


@pytest.mark.rest
def test_items(tmp_path: Path) -> None:
    """Items of a foreach compete if they are measured on the same data."""
    item = "${item}"
    fit = {**train("test.txt"), "cmd": f"echo {item} > {item}.model", "outs": [f"{item}.model"]}
    del fit["plots"]
    check = evaluate(item, f"{item}.model", f"{item}.txt", "test.txt")
    meta = {"mlflow": {"promote": ["check/score"]}}
    texts = makes({"x.txt": "same\n", "y.txt": "other\n"}, outs=["x.txt", "y.txt"])
    for data in ("both", "own"):
        deps = [f"{item}.model", "test.txt" if data == "both" else f"{item}.txt"]
        stages = {
            "texts": texts,
            "fit": {
                "foreach": ["x", "y"],
                "do": {**fit, "meta": {"mlflow": {"model": MODEL}}},
            },
            "check": {"foreach": ["x", "y"], "do": {**check, "deps": deps, "meta": meta}},
        }
        project = project_of(tmp_path / data, stages, {"rate": 1, "x": 1, "y": 2})
        x, y = sorted(project.rows(), key=lambda run: run.data.metrics["check/score"])
        promoted(project, x)
        if data == "both":
            assert promoted(project, y) == "2"
        else:
            assert refused(project, y).startswith("its data y.txt has the md5 ")


def test_json(project: Repository) -> None:
    """With --json, the decision is machine-readable."""
    (first,) = project.rows()
    known = {"run_id": first.info.run_id, "model": "project", "alias": "champion", "version": "1"}
    said = project.tool("promote", first.info.run_id, "--json")
    assert json.loads(said.out) == {**known, "promoted": True, "why": ""}
    assert (said.status, said.error) == (0, "")
    said = project.tool("promote", "--json", first.info.run_id)
    why = "test/score 1.0 is not better than the champion's 1.0 (version 1)"
    assert json.loads(said.out) == {**known, "promoted": False, "why": why}
    assert (said.status, said.error) == (1, "")


@pytest.mark.rest
def test_server(project: Repository, tmp_path: Path) -> None:
    """Promotion works the same way on a tracking server."""
    with serving(Repository(tmp_path), "server", "--workers", "1") as server:
        project.run("dvc-mlflow", "record", MLFLOW_TRACKING_URI=server)
        client = mlflow.MlflowClient(server)
        (run,) = client.search_runs([client.get_experiment_by_name("project").experiment_id])
        promote = ("dvc-mlflow", "promote", run.info.run_id)
        done = project.run(*promote, MLFLOW_TRACKING_URI=server)
        assert done.stdout.startswith("models:/project@champion is version 1, ")
        assert done.stderr == ""
        done = project.run(*promote, check=False, MLFLOW_TRACKING_URI=server)
        assert "test/score 1.0 is not better than the champion's 1.0 (version 1)" in done.stderr
