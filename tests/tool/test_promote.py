"""`dvc-mlflow promote`: from a row to the champion that is served."""

import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow.entities import Run

from pipelines import LOADER, MODEL, SERVED, Repository, Stages, evaluate, makes, repository, train
from servers import serving

pytestmark = [
    pytest.mark.pipeline,
    pytest.mark.filterwarnings("ignore"),  # what MLflow warns of in the test's process
]

TRAP = f"open(__file__ + '.ran', 'w')\n{LOADER}"
"""A loader that leaves a file where it is imported."""


def measure(*deps: str, promote: Any = ("test/score", "-test/loss"), **more: Any) -> dict[str, Any]:
    """Return a stage that measures the params `a` and `b` as score and loss, on test.txt."""
    number = "$(sed -n 's/^{}: //p' params.yaml)".format
    text = f'{{\\"score\\": {number("a")}, \\"loss\\": {number("b")}}}'
    mlflow = {"prefix": "test/", "promote": [*promote], **more}
    return {
        "cmd": f'echo "{text}" > test.json',
        "deps": ["model.txt", *(deps or ("test.txt",))],
        "params": ["a", "b"],
        "metrics": [{"test.json": {"cache": False}}],
        "meta": {"mlflow": mlflow},
    }


PARAMS = {"rate": 1, "a": 1, "b": 1}


def project_of(path: Path, stages: Stages, params: Any = PARAMS) -> Repository:
    """Return a repository in which these stages have run and been recorded."""
    files = {"loader.py": TRAP, "test.txt": "1\n", "labels.txt": "1\n"}
    project = repository(path / "project", stages, params, files, data=["test.txt"])
    project.dvc("repro", "-q")
    project.commit("The results")
    assert project.record().status == 0
    return project


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """A pipeline whose model is measured on data that DVC tracks, for all tests: copy it."""
    stages = {"train": SERVED["train"], "measure": measure()}
    return project_of(tmp_path_factory.mktemp("made"), stages)


@pytest.fixture
def project(made: Repository, tmp_path: Path) -> Repository:
    """A copy of it with its store, which follows it."""
    copy = Repository(shutil.copytree(made.path, tmp_path / "project", symlinks=True))
    copy.record()
    return copy


def row(project: Repository, **params: float) -> Run:
    """Run the pipeline with other params, and return its row."""
    project.set(params)
    project.dvc("repro", "-q")
    assert project.record().status == 0
    return project.rows()[-1]


def promoted(project: Repository, run: Run) -> str:
    """Promote a row; return the champion's version."""
    said = project.tool("promote", run.info.run_id)
    assert (said.status, said.error) == (0, ""), said
    start, _, end = said.out.partition(" is version ")
    version, _, rest = end.partition(", ")
    assert start == "models:/project@champion"
    assert rest == f"the model of row {run.info.run_id}\n"
    found = project.client.get_model_version_by_alias("project", "champion")
    assert (str(found.version), found.tags) == (version, {"dvc.row": run.info.run_id})
    assert found.source == f"models:/{run.outputs.model_outputs[0].model_id}"
    return version


def refused(project: Repository, run: Run | str) -> str:
    """Return why a row is not promoted; the registry stays as it is."""
    before = registry(project)
    run_id = run if isinstance(run, str) else run.info.run_id
    said = project.tool("promote", run_id)
    assert (said.status, said.out) == (1, "")
    assert said.error.count("\n") == 1
    assert said.error.replace("\n", "").isprintable()
    assert registry(project) == before
    return said.error.removeprefix("dvc-mlflow: ").removeprefix(f"{run_id}: not promoted; ")[:-1]


def registry(project: Repository) -> list[tuple[object, ...]]:
    """Return all that is registered."""
    found: list[tuple[object, ...]] = []
    with closing(sqlite3.connect(project.path / "mlflow.db")) as store:
        for table in ("registered_models", "model_versions", "registered_model_aliases"):
            found += store.execute(f"SELECT * FROM {table}").fetchall()  # noqa: S608
    return found


# Better


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


def test_what_counts_as_data(tmp_path: Path) -> None:
    """Data is what comes from elsewhere on the way from the model to the score, also from git."""
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
    """Where nothing says what the score was measured on, nothing can be the same."""
    project = project_of(tmp_path, {"train": SERVED["train"], "measure": measure("labels.txt")})
    assert refused(project, project.rows()[0]) == (
        "dvc.yaml does not say which data measure reads; name data that git keeps in its "
        "meta.mlflow.data"
    )


def test_training_that_measures(tmp_path: Path) -> None:
    """The stage that makes the model may measure itself; then its data is the training's."""
    meta = {"mlflow": {"model": MODEL, "promote": ["-train/loss"]}}
    project = project_of(tmp_path, {"train": {**train("test.txt"), "meta": meta}})
    promoted(project, project.rows()[0])
    assert "train/loss 0.25 is not better" in refused(project, row(project, rate=2))


def test_items(tmp_path: Path) -> None:
    """Items of a foreach compete where they are measured on the same data."""
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


# Refused


def test_rows_without_a_result(project: Repository) -> None:
    """Anything but a finished row with a result and a model is refused, and says why."""
    (good,) = project.rows()
    client, experiment = project.client, good.info.experiment_id
    assert refused(project, "0" * 32).endswith("not found; check the run id")
    for wrong in ("x; touch file", "../x", "", "\x1b[31m"):
        assert refused(project, wrong).startswith("RUN must be the run id of a row")
    started = client.create_run(experiment).info.run_id
    assert refused(project, started) == "the row is RUNNING, not FINISHED"
    client.log_metric(started, "test/score", 9)
    client.set_terminated(started, "FAILED")
    assert refused(project, started) == "the row is FAILED, not FINISHED"
    client.set_terminated(started)
    assert refused(project, started) == "the row has no result of measure"
    client.set_tag(started, "lock.measure", "x")
    client.log_metric(started, "test/loss", float("nan"))
    assert refused(project, started) == "the row has no test/loss"
    client.log_metric(started, "test/loss", 0, step=1)
    assert refused(project, started) == "the row does not say which test.txt it was measured on"
    client.log_inputs(started, good.inputs.dataset_inputs)
    assert refused(project, started) == "the row has no logged model"
    client.delete_run(good.info.run_id)
    assert refused(project, good) == "the row is in MLflow's trash"
    shutil.rmtree(project.path / ".dvc")
    assert "not inside of a DVC repository" in refused(project, good)


def test_champion_without_a_row(project: Repository) -> None:
    """If nobody knows the champion's scores any more, one line says what to do."""
    (first,) = project.rows()
    promoted(project, first)
    better = row(project, a=2)
    project.client.set_model_version_tag("project", "1", "dvc.row", "0" * 32)
    cure = "delete the alias champion to choose anew (version 1)"
    assert refused(project, better) == f"the champion's row {'0' * 32} is gone; {cure}"
    project.client.set_model_version_tag("project", "1", "dvc.row", first.info.run_id)
    text = (project.path / "dvc.yaml").read_text()
    project.write({"dvc.yaml": text.replace('["test/score", "-test/loss"]', '["extra"]')})
    project.client.log_metric(better.info.run_id, "extra", 1)
    assert refused(project, better) == (
        f"the champion's row {first.info.run_id} has no extra (version 1)"
    )


@pytest.mark.parametrize(
    ("promote", "line"),
    [
        ([], "dvc.yaml names no metric to compare; add `promote: [-test/loss]` to meta.mlflow"),
        (["metrics.test/loss"], "dvc.yaml: stages.measure.meta.mlflow.promote: must be a list of"),
    ],
)
def test_no_metric_is_named(project: Repository, promote: list[str], line: str) -> None:
    """If dvc.yaml does not say what better means, the error says how to."""
    stages = {"train": SERVED["train"], "measure": measure(promote=promote)}
    project.write({"dvc.yaml": json.dumps({"stages": stages})})
    assert refused(project, project.rows()[0]).startswith(line)


def test_json(project: Repository) -> None:
    """With --json, a program can read what was decided."""
    (first,) = project.rows()
    known = {"run_id": first.info.run_id, "model": "project", "alias": "champion", "version": "1"}
    said = project.tool("promote", first.info.run_id, "--json")
    assert json.loads(said.out) == {**known, "promoted": True, "why": ""}
    assert (said.status, said.error) == (0, "")
    said = project.tool("promote", "--json", first.info.run_id)
    why = "test/score 1.0 is not better than the champion's 1.0 (version 1)"
    assert json.loads(said.out) == {**known, "promoted": False, "why": why}
    assert (said.status, said.error) == (1, "")


# Others' stores


def test_server(project: Repository, tmp_path: Path) -> None:
    """On a tracking server it is the same."""
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


ODD = ["../../x", "\x1b[31m'", "a/b:c", "x'; DROP TABLE runs; --", "models:/x@champion"]


@pytest.mark.parametrize("name", ODD)
def test_hostile_names(project: Repository, name: str, tmp_path: Path) -> None:
    """Whatever an experiment, a tag and a data set are called, nothing runs or leads out."""
    (run,) = project.rows()
    with closing(sqlite3.connect(project.path / "mlflow.db")) as store, store:
        store.execute("UPDATE experiments SET name = ? WHERE experiment_id = 1", [name])
        store.execute("UPDATE logged_models SET artifact_location = ?", [f"file://{tmp_path}/x"])
        store.execute("UPDATE logged_models SET name = ?", [name])
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if is_users(path)}
    for _ in range(2):
        said = project.tool("promote", run.info.run_id)
        assert (said.out + said.error).count("\n") == 1
        assert (said.out + said.error).replace("\n", "").isprintable()
    project.client.set_tag(run.info.run_id, "lock.measure", name)
    with closing(sqlite3.connect(project.path / "mlflow.db")) as store, store:
        store.execute("UPDATE model_version_tags SET value = ?", [name])
        store.execute("UPDATE datasets SET digest = ?", [name[:36]])
    said = project.tool("promote", run.info.run_id)
    assert (said.status, said.error.count("\n")) == (1, 1)
    assert said.error.replace("\n", "").isprintable()
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if is_users(path)} == before


def is_users(path: Path) -> bool:
    """Whether a path is none of the store's or DVC's."""
    return path.is_file() and not {".dvc", ".git", "mlflow.db", "mlartifacts"} & {*path.parts}
