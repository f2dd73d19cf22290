"""`dvc-mlflow promote` makes a row's model the champion only if it is better on the same data."""

import json
from pathlib import Path

import mlflow
import pytest

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
    artifacts = {"clf": {"path": "model.txt", "type": "model"}}
    return measured(tmp_path_factory.mktemp("made"), artifacts=artifacts)


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
    assert promoted(project, first) == "v0.0.1"
    assert refused(project, first) == (
        "test/score 1.0 is not better than the champion's 1.0 (v0.0.1)"
    )
    best = row(project, a=3, b=2)
    assert best.outputs.model_outputs[0].model_id == first.outputs.model_outputs[0].model_id
    assert promoted(project, best) == "v0.0.2"
    lower = "test/score 2.0 is not better than the champion's 3.0 (v0.0.2)"
    assert refused(project, row(project, a=2, b=0)) == lower
    higher = "test/loss 2.5 is not better than the champion's 2.0 (v0.0.2)"
    assert refused(project, row(project, a=3, b=2.5)) == higher
    assert promoted(project, row(project, b=1.5)) == "v0.0.3"
    other = row(project, rate=2, b=0)
    assert other.outputs.model_outputs[0].model_id != best.outputs.model_outputs[0].model_id
    assert promoted(project, other) == "v0.0.4"
    assert not [*project.path.rglob("*.ran")]
    loaded = mlflow.pyfunc.load_model("models:/clf@champion")
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
        "b026324c6904b2a9cb4b88d6d61c81d1 (v0.0.1)"
    )
    gto(project, "deprecate", "clf", "v0.0.1", "champion")
    assert promoted(project, better) == "v0.0.2"


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


def test_data_is_not_said(tmp_path: Path) -> None:
    """If dvc.yaml does not declare what a score was measured on, promotion is refused."""
    project = project_of(tmp_path, {**NAMED, "measure": measure("labels.txt")})
    assert refused(project, project.rows()[0]) == (
        "dvc.yaml does not say which data measure reads; name data that git keeps in its "
        "meta.mlflow.data"
    )


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


def test_json(project: Repository) -> None:
    """With --json, the decision is machine-readable."""
    (first,) = project.rows()
    commit = project.git("rev-parse", "HEAD")
    known = {"run_id": first.info.run_id, "model": "clf", "alias": "champion", "version": "1"}
    made = {"commit": commit, "tags": ["clf@v0.0.1", "clf#champion#1"]}
    said = promote(project, first.info.run_id, "--json")
    assert json.loads(said.out) == {**known, **made, "promoted": True, "why": ""}
    assert (said.status, said.error) == (0, "")
    said = promote(project, "--json", first.info.run_id)
    why = "test/score 1.0 is not better than the champion's 1.0 (v0.0.1)"
    unmade = {"commit": "", "tags": []}
    assert json.loads(said.out) == {**known, **unmade, "promoted": False, "why": why}
    assert (said.status, said.error) == (1, "")


def test_stage(project: Repository) -> None:
    """Another stage has a champion of its own; a version that exists only gets the stage."""
    (first,) = project.rows()
    promoted(project, first)
    run_id = first.info.run_id
    said = promote(project, run_id, "--stage", "prod", "--dry-run")
    commit = project.git("rev-parse", "--short=7", "HEAD")
    assert said == (f"would promote row {run_id}: clf at commit {commit}, prod\n", "", 0)
    assert aliases(project) == {"champion": "v0.0.1"}
    said = promote(project, run_id, "--stage", "prod")
    assert said.out.startswith("clf@v0.0.1 and clf#prod#2: at commit ")
    assert aliases(project) == {"champion": "v0.0.1", "prod": "v0.0.1"}
    assert project.git("tag").split() == ["clf#champion#1", "clf#prod#2", "clf@v0.0.1"]
    for name in ("latest", "v1", "a/b"):
        rule = f"MLflow allows no alias {name!r}; choose another --stage"
        assert refused(project, first, "--stage", name) == rule
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
    project.dvc("artifacts", "get", ".", "clf", "--stage", "champion", "-o", "got.txt")
    assert (project.path / "got.txt").read_text() == "1\nrate: 1\n"


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


def test_no_name(tmp_path: Path) -> None:
    """A model without a name is refused; its key in `artifacts` comes before its own name."""
    project = measured(tmp_path)
    (first,) = project.rows()
    text = (project.path / "dvc.yaml").read_text()
    project.write({"dvc.yaml": text.replace(', "name": "clf"', "")})
    project.git("commit", "-q", "--amend", "-a", "-m", "The results")
    assert refused(project, first) == (
        "the row's model has no name; name it in `artifacts` of dvc.yaml, or by `name` in "
        "meta.mlflow.model of its stage"
    )
    stages = json.loads(text)
    stages["artifacts"] = {"lstm": {"path": "model.txt", "type": "model"}}
    project.write({"dvc.yaml": json.dumps(stages)})
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
        project.run("dvc-mlflow", "record", MLFLOW_TRACKING_URI=server)
        client = mlflow.MlflowClient(server)
        (run,) = client.search_runs([client.get_experiment_by_name("project").experiment_id])
        promote = ("dvc-mlflow", "promote", run.info.run_id)
        done = project.run(*promote, MLFLOW_TRACKING_URI=server)
        assert "models:/clf@champion is version 1\n" in done.stdout
        assert done.stderr == ""
        done = project.run(*promote, check=False, MLFLOW_TRACKING_URI=server)
        assert "test/score 1.0 is not better than the champion's 1.0 (v0.0.1)" in done.stderr


def test_model_declared_later(tmp_path: Path) -> None:
    """A row of any commit can be promoted once the checkout says how its model is loaded."""
    project = project_of(tmp_path, {"train": train("raw.txt"), "measure": measure()})
    project.git("rm", "-q", "--cached", "loader.py")
    project.git("commit", "-q", "--amend", "-m", "No loader")
    row(project, rate=2, a=0)
    best, _ = project.rows()
    lacks = "the row has no logged model; `dvc-mlflow record --all` logs it, once dvc.yaml says how"
    assert refused(project, best).startswith(lacks)
    given = json.loads((project.path / "dvc.yaml").read_text())
    artifact = {"path": "model.txt", "type": "model", "meta": MODEL}
    project.write({"dvc.yaml": json.dumps({**given, "artifacts": {"clf": artifact}})})
    assert "2 rows completed" in project.record("--all").out
    best, other = project.rows()
    assert promoted(project, best) == "v0.0.1"
    loaded = mlflow.pyfunc.load_model("models:/clf@champion")
    assert loaded.predict([1]) == ["1\nrate: 1\n"]
    # Another declaration makes another logged model, and the newest one is served.
    loader = {**MODEL, "pip_requirements": ["six"]}
    artifact = {"path": "model.txt", "type": "model", "meta": loader}
    project.write({"dvc.yaml": json.dumps({**given, "artifacts": {"clf": artifact}})})
    assert "2 rows completed" in project.record("--all").out
    assert "test/score 0.0 is not better" in refused(project, other)
    project.remove_store()
    done = project.run("dvc-mlflow", "record", "--all")
    assert "models:/clf@champion is version 1, v0.0.1 in git\n" in done.stdout
    assert done.stderr == ""
