"""`dvc-mlflow promote` makes a row's model the champion only if it is better on the same data."""

import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow.entities import (
    Dataset,
    DatasetInput,
    LifecycleStage,
    Metric,
    Run,
    RunData,
    RunInfo,
    RunInputs,
)

from dvc_mlflow.registry.promotion_rule import PromotionRule, defeat
from support.pipelines import MODEL, Repository, evaluate, train
from support.promoting import (
    NAMED,
    aliases,
    gto,
    measure,
    measured,
    project_of,
    promote,
    promoted,
    refused,
    row,
)
from support.servers import serving

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


CONTEST = PromotionRule(
    metrics=["score", "-loss"],
    measuring=["measure"],
    data=["test.txt"],
    makers=["train"],
    outputs=["model.txt"],
    names=["clf"],
)


def measured_row(data: str = "", **scores: float) -> Run:
    """Return a row that was measured on data of this md5, if any."""
    given = [DatasetInput(Dataset("test.txt", data, "local", "x"))] if data else []
    metrics = [Metric(key, value, 0, 0) for key, value in scores.items()]
    info = RunInfo("0", "0", "me", "FINISHED", 0, 0, LifecycleStage.ACTIVE, run_name="mine")
    return Run(info, RunData(metrics), RunInputs(given))


LOWER = "score 1 is not better than the champion's 2"
HIGHER = "loss 3 is not better than the champion's 2"
DEFEATS: dict[str, tuple[Run, str]] = {
    "better": (measured_row("a", score=3, loss=3), ""),
    "worse": (measured_row("a", score=1, loss=1), LOWER),
    "the same": (measured_row("a", score=2, loss=2), "score 2 is not better than the champion's 2"),
    "better by the second": (measured_row("a", score=2, loss=1), ""),
    "worse by the second": (measured_row("a", score=2, loss=3), HIGHER),
    "other data": (
        measured_row("b", score=3, loss=3),
        "its data test.txt has the md5 b, the champion's a",
    ),
}


def test_defeat() -> None:
    """The first metric that differs decides, and only on the same data."""
    champion = measured_row("a", score=2, loss=2)
    found = {what: defeat(run, champion, CONTEST) for what, (run, _) in DEFEATS.items()}
    assert found == {what: why for what, (_, why) in DEFEATS.items()}
    better = DEFEATS["better"][0]
    unknown = "its data test.txt has the md5 a, the champion's is not known"
    assert defeat(better, measured_row(score=2, loss=2), CONTEST) == unknown
    lacks = "the champion's row mine has no score"
    assert defeat(better, measured_row("a", loss=2), CONTEST) == lacks


def test_promote(project: Repository) -> None:
    """A row's model becomes the champion only if it is better on the same data.

    Rows share a model, as none of the params is the training's, so the champion's scores are those
    of its row.
    """
    (first,) = project.rows()
    assert promoted(project, first) == "v0.0.1"
    assert refused(project, first) == "it is the champion already (v0.0.1)"
    best = row(project, a=3, b=2)
    assert best.outputs.model_outputs[0].model_id == first.outputs.model_outputs[0].model_id
    assert promoted(project, best) == "v0.0.2"
    other = row(project, rate=2, b=0)
    assert other.outputs.model_outputs[0].model_id != best.outputs.model_outputs[0].model_id
    assert promoted(project, other) == "v0.0.3"
    assert not [*project.path.rglob("*.ran")]
    loaded = mlflow.pyfunc.load_model("models:/clf@champion")
    assert loaded.predict([1]) == ["1\nrate: 2\n"]
    project.write({"test.txt": "2\n"})
    project.dvc("add", "-q", "test.txt")
    better = row(project, a=9)
    assert refused(project, better) == (
        "its data test.txt has the md5 26ab0db90d72e28ad0ba1e22ee510510, the champion's "
        "b026324c6904b2a9cb4b88d6d61c81d1 (v0.0.3)"
    )


@pytest.mark.rest
def test_what_counts_as_data(tmp_path: Path) -> None:
    """Data is whatever goes into the score besides the model, in DVC or in git."""
    stages = {
        **NAMED,
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
    assert (
        promoted(project, row(project, rate=2, a=2)) == "v0.0.2"
    )  # other answers of another model
    project.write({"labels.txt": "2\n"})
    assert refused(project, row(project, a=3)).startswith("its data labels.txt has the md5 ")
    project.write({"labels.txt": "1\n", "test.txt": "2\n"})
    project.dvc("add", "-q", "test.txt")
    assert refused(project, row(project, a=4)).startswith("its data q.txt has the md5 ")


@pytest.mark.rest
def test_training_that_measures(tmp_path: Path) -> None:
    """A training stage may measure its own model; then the data is the training data."""
    model = {**MODEL, "name": "clf"}
    meta = {"mlflow": {"model": model, "promote": ["-train/loss"]}}
    project = project_of(tmp_path, {"train": {**train("test.txt"), "meta": meta}})
    promoted(project, project.rows()[0])
    assert "train/loss 0.25 is not better" in refused(project, row(project, rate=2))


@pytest.mark.rest
def test_items(tmp_path: Path) -> None:
    """Each item of a foreach has a champion of its own, named after the model and the item."""
    item = "${item}"
    fit = {**train("test.txt"), "cmd": f"echo {item} > {item}.model", "outs": [f"{item}.model"]}
    del fit["plots"]
    fit["meta"] = {"mlflow": {"model": {**MODEL, "name": "clf"}}}
    check = evaluate(item, f"{item}.model", "test.txt")
    check["meta"] = {"mlflow": {"promote": ["check/score"]}}
    stages = {
        "fit": {"foreach": ["x", "y"], "do": fit},
        "check": {"foreach": ["x", "y"], "do": check},
    }
    project = project_of(tmp_path, stages, {"rate": 1, "x": 2, "y": 1})
    y, x = sorted(project.rows(), key=lambda run: run.data.metrics["check/score"])
    assert promoted(project, x, "clf-x") == promoted(project, y, "clf-y") == "v0.0.1"
    assert promoted(project, row(project, y=1.5), "clf-y") == "v0.0.2"
    assert aliases(project, "clf-x") == {"champion": "v0.0.1"}
    assert refused(project, row(project, x=0)).startswith("check/score 0.0 is not better")


def test_stage(project: Repository) -> None:
    """Another stage has a champion of its own; a version that exists only gets the stage.

    With --json, the decision is machine-readable.
    """
    (first,) = project.rows()
    run_id, commit = first.info.run_id, project.git("rev-parse", "HEAD")
    known = {"run_id": run_id, "model": "clf", "alias": "champion", "version": "1"}
    given = {"commit": commit, "tags": ["clf@v0.0.1", "clf#champion#1"]}
    said = promote(project, run_id, "--json")
    assert json.loads(said.out) == {**known, **given, "promoted": True, "why": ""}
    assert (said.status, said.error) == (0, "")
    said = promote(project, "--json", run_id)
    why = "it is the champion already (v0.0.1)"
    none = {"commit": "", "tags": []}
    assert json.loads(said.out) == {**known, **none, "promoted": False, "why": why}
    assert (said.status, said.error) == (1, "")
    said = promote(project, run_id, "--stage", "prod", "--dry-run")
    assert said == (f"would promote row {run_id}: clf at commit {commit[:7]}, prod\n", "", 0)
    assert aliases(project) == {"champion": "v0.0.1"}
    said = promote(project, run_id, "--stage", "prod")
    assert said.out.startswith("clf@v0.0.1 and clf#prod#2: at commit ")
    assert aliases(project) == {"champion": "v0.0.1", "prod": "v0.0.1"}
    assert project.git("tag").split() == ["clf#champion#1", "clf#prod#2", "clf@v0.0.1"]
    rule = "MLflow allows no alias 'latest'; choose another --stage"
    assert refused(project, first, "--stage", "latest") == rule
    assert "Invalid value" in refused(project, first, "--stage", "x-")


def test_where_a_tag_is_made(project: Repository) -> None:
    """A version is registered at a commit or an experiment, never at a row's own commit.

    That would publish what was not tracked. The oldest commit of a branch has the tag.
    """
    better = row(project, commit=False, a=2)
    cure = "`git commit` its dvc.lock, or `dvc exp branch` its experiment"
    none = f"no branch, tag or experiment in git has its result; {cure}"
    assert refused(project, better) == none
    project.commit("Better")
    project.commit("Nothing")
    promoted(project, better)
    assert project.git("rev-list", "-n1", "clf@v0.0.1") == project.git("rev-parse", "HEAD~")
    project.dvc("exp", "run", "-q", "-n", "best", "-S", "a=3")
    project.git("checkout", "-q", ".")
    assert project.record("--experiments").status == 0
    found = [run for run in project.rows() if run.data.metrics["test/score"] == 3]
    promoted(project, found[0])
    experiment = project.git("for-each-ref", "--format=%(objectname)", "refs/exps/*/*/best")
    assert project.git("rev-list", "-n1", "clf@v0.0.2") == experiment


def test_second_row_of_a_commit(project: Repository) -> None:
    """A commit has one version of an artifact, so another row of it is refused."""
    (first,) = project.rows()
    promoted(project, first)
    gto(project, "deprecate", "clf", "v0.0.1", "champion")
    client = project.client  # on a server, another experiment can have the same result
    second = client.create_run(first.info.experiment_id, tags=first.data.tags).info.run_id
    for key, value in first.data.metrics.items():
        client.log_metric(second, key, value)
    client.log_inputs(second, first.inputs.dataset_inputs)
    client.log_outputs(second, first.outputs.model_outputs)
    client.set_terminated(second)
    commit = project.git("rev-parse", "--short=7", "HEAD")
    assert refused(project, second) == (
        f"clf@v0.0.1 is another row's, of the same commit {commit}; "
        "a commit has one version of an artifact"
    )
    assert promoted(project, row(project, a=0)) == "v0.0.2"  # there is no champion to defeat


def test_what_is_not_said(project: Repository) -> None:
    """What dvc.yaml has to say is named: the model's name, what better means, and on which data.

    A key in `artifacts` comes before the model's own name.
    """
    (first,) = project.rows()
    text = (project.path / "dvc.yaml").read_text()
    wrong: dict[str, tuple[dict[str, Any], str]] = {
        "no data": (
            measure("labels.txt"),
            "dvc.yaml does not say which data measure reads; name data that git keeps in its "
            "meta.mlflow.data",
        ),
        "no metric": (
            measure(promote=[]),
            "dvc.yaml names no metric to compare; add `promote: [-test/loss]` to meta.mlflow of "
            "the stage that measures it",
        ),
        "no list": (
            measure(promote=["metrics.test/loss"]),
            "dvc.yaml: stages.measure.meta.mlflow.promote: must be a list of",
        ),
    }
    for what, (stage, line) in wrong.items():
        project.write({"dvc.yaml": json.dumps({"stages": {**NAMED, "measure": stage}})})
        assert refused(project, first).startswith(line), what
    project.write({"dvc.yaml": text.replace(', "name": "clf"', "")})
    project.git("commit", "-q", "--amend", "-a", "-m", "The results")
    assert refused(project, first) == (
        "the row's model has no name; name it in `artifacts` of dvc.yaml, or by `name` in "
        "meta.mlflow.model of its stage"
    )
    artifacts = {"lstm": {"path": "model.txt", "type": "model"}}
    project.write({"dvc.yaml": json.dumps({**json.loads(text), "artifacts": artifacts})})
    project.commit("Name the model")
    promoted(project, first, "lstm")


def test_champion_that_somebody_chose(project: Repository) -> None:
    """Where git has no champion yet, an alias in MLflow is the one to defeat, and then moves."""
    (first,) = project.rows()
    (model,) = first.outputs.model_outputs
    mlflow.set_tracking_uri(f"sqlite:///{project.path}/mlflow.db")
    mlflow.register_model(f"models:/{model.model_id}", "clf", tags={"dvc.row": first.info.run_id})
    project.client.set_registered_model_alias("clf", "champion", "1")
    worse = "test/score 0.0 is not better than the champion's 1.0 (version 1)"
    assert refused(project, row(project, a=0)) == worse
    assert promoted(project, row(project, a=2)) == "v0.0.1"
    assert aliases(project) == {"champion": "v0.0.1"}


@pytest.mark.rest
def test_server(project: Repository, tmp_path: Path) -> None:
    """Promotion works the same way on a tracking server."""
    with serving(Repository(tmp_path), "server", "--workers", "1") as server:
        project.tool("record", MLFLOW_TRACKING_URI=server)
        client = mlflow.MlflowClient(server)
        (run,) = client.search_runs([client.get_experiment_by_name("project").experiment_id])
        promote = ("promote", run.info.run_id)
        said = project.tool(*promote, MLFLOW_TRACKING_URI=server)
        assert "models:/clf@champion is version 1\n" in said.out
        assert said.error == ""
        said = project.tool(*promote, MLFLOW_TRACKING_URI=server)
        assert "it is the champion already (v0.0.1)" in said.error


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


ODD = ["../../\x1b[31m'; DROP TABLE runs; --", "models:/x@champion"]


def test_hostile_names(project: Repository, tmp_path: Path) -> None:
    """Hostile names of experiments, tags and data sets run nothing and lead nowhere."""
    (run,) = project.rows()
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if is_users(path)}
    for name in ODD:
        with closing(sqlite3.connect(project.path / "mlflow.db")) as store, store:
            store.execute("UPDATE experiments SET name = ? WHERE experiment_id = 1", [name])
            store.execute(
                "UPDATE logged_models SET artifact_location = ?", [f"file://{tmp_path}/x"]
            )
            store.execute("UPDATE logged_models SET name = ?", [name])
        said = promote(project, run.info.run_id)
        assert (said.out + said.error).count("\n") in (1, 3)
        assert (said.out + said.error).replace("\n", "").isprintable()
    for name in ODD:
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
