"""`dvc-mlflow promote` makes a row's model the champion only if it is better on the same data."""

import json
from collections.abc import Mapping
from contextlib import chdir
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlflow
import pytest
import yaml

from dvc_mlflow.pipeline.promotion import Contender
from dvc_mlflow.pipeline.tags import COMMIT, DATA
from dvc_mlflow.project.definitions import read_pipeline
from dvc_mlflow.project.project import Project
from support import locked
from support.pipelines import ARTIFACTS, MODEL, Repository, Stages
from support.promoting import (
    aliases,
    measure,
    measured,
    promote,
    promoted,
    refused,
    row,
)

pytestmark = pytest.mark.pipeline


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """A pipeline whose model is measured on data that DVC tracks, for all tests: copy it."""
    return measured(tmp_path_factory.mktemp("made"))


@pytest.fixture
def project(made: Repository, tmp_path: Path) -> Repository:
    """A copy of that pipeline with its store."""
    return made.copy_with_rows(tmp_path / "project")


def contender(project: Repository) -> Contender:
    """Return the row of a project that DVC has run."""
    (found,) = locked.read(project).rows
    with chdir(project.path), Project() as opened:
        data = {DATA: found.data} if found.data else {}
        return Contender.of(read_pipeline(opened), found.metrics, {**found.tags, **data})


SCORE, LOSS = (f"{key} {{}} is not better than the champion's 2" for key in ("score", "loss"))
DEFEATS: list[tuple[dict[str, float], str, str]] = [
    ({"score": 3, "loss": 3}, "a", ""),
    ({"score": 1, "loss": 1}, "a", SCORE.format(1)),
    ({"score": 2, "loss": 2}, "a", SCORE.format(2)),
    ({"score": 2, "loss": 1}, "a", ""),
    ({"score": 2, "loss": 3}, "a", LOSS.format(3)),
    ({"score": 3, "loss": 3}, "b", "its data is b, the champion's is a"),
]


def test_defeat(tmp_path: Path) -> None:
    """The first metric that differs decides, and only on the same data."""
    stage = {**measure("raw.txt", promote=["score", "-loss"]), "deps": ["raw.txt"]}
    files = {"test.json": '{"score": 0}'}
    mine = contender(locked.locked(tmp_path / "project", {"measure": stage}, files=files))
    for metrics, data, why in DEFEATS:
        other = replace(mine, metrics=metrics, tags={DATA: data})
        assert other.defeat({"score": 2, "loss": 2}, {DATA: "a"}) == why
    assert other.defeat({"score": 2}, {}) == "its data is b, the champion's is not known"
    assert other.defeat({"loss": 2}, {DATA: "b"}) == "the champion's row has no score"
    assert replace(mine, metrics={"loss": 1}).missing == ["score"]


CODE = "from sklearn.svm import SVC"
MINE = {"loader_module": "serving", "code_paths": ["serving.py"], "pip_requirements": []}
SKLEARN = {"loader_module": "mlflow.sklearn", "pip_requirements": ["scikit-learn"]}
FILED = {**SKLEARN, "pip_requirements": "requirements.txt"}
LOADERS: list[tuple[str, str, dict[str, str], dict[str, Any]]] = [
    ("out/forest.pkl", "forest", {"fit.py": CODE}, SKLEARN),
    ("forest.pkl", "forest", {"fit.py": f"{CODE}; joblib.dump(x)"}, MINE),
    ("forest.pickle", "forest", {"requirements.txt": "scikit-learn"}, FILED),
    ("deep model", "deep-model", {}, MINE),
    ("net", "declared", {"fit.py": CODE}, MINE),
]


def lines(path: Path, model: str, files: Mapping[str, str], data: str) -> Any:
    """Return what dvc.yaml lacks where a model is made and measured on data."""
    stages: Stages = {
        "fit": {"cmd": "run", "deps": ["fit.py", "raw.txt"], "outs": ["seen.txt", model]},
        "test": {"cmd": "run", "deps": [model, data, "t.py"], "metrics": ["score.json"]},
    }
    score = '{"loss": 1, "n": 2, "accuracy": 0.5, "train": {"accuracy": 1}}'
    texts = {"fit.py": "", "t.py": "", "seen.txt": "", model: "1", data: "2", "score.json": score}
    tracked = ["raw.txt"] if data == "in_git.csv" else ["raw.txt", data]
    declared = {"declared": {"path": "net", "type": "model"}} if model == "net" else {}
    texts |= files
    project = locked.locked(path, stages, files=texts, tracked=tracked, artifacts=declared)
    with chdir(project.path), Project() as opened:
        return yaml.safe_load(
            "\n".join(contender(project).lines_to_add(opened.text, is_loaded=False))
        )


def test_lines_to_add(tmp_path: Path) -> None:
    """What dvc.yaml lacks is shown in the pipeline's own names, so that it can be pasted.

    The metric is the evaluation's most telling one, and the loader the one that its code suggests.
    """
    for n, (model, key, files, meta) in enumerate(LOADERS):
        found = lines(tmp_path / f"{n}", model, files, "test.csv")
        assert found == {
            "stages": {"test": {"meta": {"mlflow": {"promote": ["test/accuracy"]}}}},
            "artifacts": {key: {"path": model, "type": "model", "meta": meta}},
        }
    found = lines(tmp_path / "git", "m.pt", {}, "in_git.csv")
    settings = {"promote": ["test/accuracy"], "data": ["in_git.csv"]}
    assert found["stages"]["test"]["meta"]["mlflow"] == settings


def test_promote(project: Repository) -> None:
    """A row's model becomes the champion only if it is better on the same data.

    Rows share a model, as none of the params is the training's, so the champion's scores are those
    of its row. If the store is lost, the champion is the same; if only its row is, a line says so.
    """
    (first,) = project.rows()
    assert promoted(project, first) == "v0.0.1"
    assert refused(project, first) == "it is the champion already (clf#champion#1)"
    best = row(project, a=3, b=2)
    assert project.models(best) == project.models(first)
    assert promoted(project, best) == "v0.0.2"
    why = "test/score 2.0 is not better than the champion's 3.0 (clf#champion#2)"
    assert refused(project, row(project, a=2)) == why
    other = row(project, rate=2, a=3, b=0)
    assert project.models(other) != project.models(best)
    assert promoted(project, other) == "v0.0.3"
    assert not [*project.path.rglob("*.ran")]
    loaded = mlflow.pyfunc.load_model("models:/clf@champion")
    assert loaded.predict([1]) == ["1\nrate: 2\n"]
    project.write({"test.txt": "2\n"})
    project.dvc("add", "-q", "test.txt")
    better = row(project, rate=3, a=9)
    why = "its data is 26ab0db test.txt, the champion's is b026324 test.txt (clf#champion#3)"
    assert refused(project, better) == why
    lost = project.copy(project.path.with_name("lost"))
    assert lost.record("--all").status == 0
    assert aliases(lost) == {"champion": "v0.0.3"}
    scores = {"test/score": 3, "test/loss": 0}
    (champion,) = (r for r in lost.rows() if scores.items() <= r.data.metrics.items())
    assert refused(lost, champion) == "it is the champion already (clf#champion#3)"
    project.client.delete_run(other.info.run_id)
    why = "MLflow has no row of the champion, clf#champion#3; `dvc-mlflow record --all`"
    assert refused(project, better) == why


def test_stage(project: Repository) -> None:
    """Another stage has a champion of its own; a version that exists only gets the stage."""
    (first,) = project.rows()
    run_id, commit = first.info.run_id, project.git("rev-parse", "HEAD")
    said = promote(project, run_id)
    assert said.out.startswith("clf@v0.0.1 and clf#champion#1: at commit ")
    assert refused(project, first) == "it is the champion already (clf#champion#1)"
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

    That would publish what was not tracked. The oldest commit of a branch has the tag. What else a
    store calls a row's commit leads nowhere.
    """
    better = row(project, commit=False, a=2)
    none = "git has no commit of its result; commit dvc.lock, then `dvc-mlflow record`"
    own = project.git("for-each-ref", "--format=%(objectname)", "refs/rows")
    for commit in ("../\x1b[31m'; --", "HEAD^{tree}", "--all", "HEAD", "f" * 40, own):
        project.client.set_tag(better.info.run_id, COMMIT, commit)
        assert refused(project, better) == none
    project.commit("Better")
    project.commit("Nothing")
    project.record("--all")
    promoted(project, better)
    assert project.git("rev-list", "-n1", "clf@v0.0.1") == project.git("rev-parse", "HEAD~")
    project.dvc("exp", "run", "-q", "-n", "best", "-S", "a=3")
    project.git("checkout", "-q", ".")
    assert project.record("--all").status == 0
    (found,) = [run for run in project.rows() if run.data.metrics["test/score"] == 3]
    promoted(project, found)
    experiment = project.git("for-each-ref", "--format=%(objectname)", "refs/exps/*/*/best")
    assert project.git("rev-list", "-n1", "clf@v0.0.2") == experiment


def test_all_at_once(made: Repository, tmp_path: Path) -> None:
    """What stands in a row's way is one message, with the lines that dvc.yaml lacks.

    With these lines, the row of an older commit is promoted and served, though nothing runs again.
    """
    project = made.copy(tmp_path / "project")
    told = json.loads((project.path / "dvc.yaml").read_text())
    del told["artifacts"]
    del told["stages"]["measure"]["meta"]
    project.write({"dvc.yaml": json.dumps(told)})
    best = row(project, a=2, rate=2)
    row(project, a=1, rate=3)
    lines = refused(project, best).splitlines()
    assert lines[0] == "dvc.yaml lacks these lines:"
    added = yaml.safe_load("\n".join(lines[1:]))
    meta = {"mlflow": {"promote": ["measure/score"]}}
    assert added["stages"] == {"measure": {"meta": meta}}
    assert added["artifacts"]["model"]["path"] == "model.txt"
    told["stages"]["measure"]["meta"] = meta
    added["artifacts"]["model"]["meta"] |= {"loader_module": "loader", "code_paths": ["loader.py"]}
    project.write({"dvc.yaml": json.dumps({**told, "artifacts": added["artifacts"]})})
    assert not project.models(best)
    said = promote(project, best.info.run_id)
    assert (said.status, said.error) == (0, "")
    mlflow.set_tracking_uri(f"sqlite:///{project.path}/mlflow.db")
    loaded = mlflow.pyfunc.load_model("models:/model@champion")
    assert loaded.predict([1]) == ["1\nrate: 2\n"]


def test_refused(project: Repository) -> None:
    """Any row but a finished one with a result and a model is refused, with all reasons.

    A setting that is wrong, and two models, are said with the rest.
    """
    (good,) = project.rows()
    client, told = project.client, json.loads((project.path / "dvc.yaml").read_text())
    settings = told["stages"]["measure"]["meta"]["mlflow"]
    started = client.create_run(good.info.experiment_id).info.run_id
    why = "it has no test/score; it has no test/loss; it is RUNNING, not FINISHED; git has no "
    assert refused(project, started).startswith(why)
    settings["promote"] = ["metrics.test/loss"]
    project.write({"dvc.yaml": json.dumps(told)})
    why = refused(project, good)
    assert why.startswith("dvc.yaml: stages.measure.meta.mlflow.promote: must be a list of")
    assert "promote: [test/score]" in why
    settings["promote"] = ["test/f1"]
    artifacts = {**ARTIFACTS, "curve": {"path": "curve.csv", "type": "model", "meta": MODEL}}
    project.write({"dvc.yaml": json.dumps({**told, "artifacts": artifacts})})
    client.delete_run(good.info.run_id)
    why = "it has no test/f1; it is in MLflow's trash; it has 2 models: clf, curve"
    assert refused(project, good) == why
