"""`dvc-mlflow promote` makes a row's model the champion only if it is better on the same data."""

import json
import shutil
from collections.abc import Mapping
from contextlib import chdir
from pathlib import Path
from typing import Any

import mlflow
import pytest
import yaml

from dvc_mlflow.pipeline.promotion import Contender
from dvc_mlflow.project.definitions import read_pipeline
from dvc_mlflow.project.project import Project
from support import locked
from support.pipelines import ARTIFACTS, MODEL, Repository, Stages, evaluate, makes, train
from support.promoting import (
    aliases,
    measure,
    measured,
    project_of,
    promote,
    promoted,
    refused,
    row,
)

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


def contender(project: Repository, **metrics: float) -> Contender:
    """Return the row of a project that DVC has run, with these metrics or its own."""
    (found,) = locked.read(project).rows
    with chdir(project.path), Project() as opened:
        tags = {**found.tags, **({"data": found.data} if found.data else {})}
        return Contender.of(read_pipeline(opened), metrics or found.metrics, tags)


DEFEATS: dict[str, tuple[dict[str, float], str, str]] = {
    "better": ({"score": 3, "loss": 3}, "a", ""),
    "worse": ({"score": 1, "loss": 1}, "a", "score 1 is not better than the champion's 2"),
    "the same": ({"score": 2, "loss": 2}, "a", "score 2 is not better than the champion's 2"),
    "better by the second": ({"score": 2, "loss": 1}, "a", ""),
    "worse by the second": (
        {"score": 2, "loss": 3},
        "a",
        "loss 3 is not better than the champion's 2",
    ),
    "other data": ({"score": 3, "loss": 3}, "b", "its data is b, the champion's is a"),
}


def test_defeat(tmp_path: Path) -> None:
    """The first metric that differs decides, and only on the same data."""
    stage = {**measure("raw.txt", promote=["score", "-loss"]), "deps": ["raw.txt"]}
    files = {"test.json": '{"score": 0}'}
    project = locked.locked(tmp_path / "project", {"measure": stage}, files=files)
    champion = {"score": 2, "loss": 2}
    for what, (metrics, data, why) in DEFEATS.items():
        mine = contender(project, **metrics)
        mine = Contender(mine.pipeline, mine.row_stages, metrics, {"data": data})
        assert mine.defeat(champion, {"data": "a"}) == why, what
    unknown = mine.defeat(champion, {})
    assert unknown == "its data is b, the champion's is not known"
    assert mine.defeat({"loss": 2}, {"data": "b"}) == "the champion's row has no score"
    assert contender(project, loss=1).missing == ["score"]


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


def test_lines_for_other_places(tmp_path: Path) -> None:
    """A dvc.yaml in a folder is named, and so is the place in a foreach."""
    fit = makes({"m.pt": "1"}, outs=["m.pt"])
    do = {**makes({"${item}.json": ""}, deps=["m.pt"]), "metrics": ["${item}.json"]}
    stages = {"fit": fit, "check": {"foreach": ["x"], "do": do}}
    files = {"sub/dvc.yaml": json.dumps({"stages": stages}), "sub/m.pt": "1"}
    project = locked.locked(tmp_path / "project", {}, files={**files, "sub/x.json": '{"mse": 1}'})
    found = contender(project).lines_to_add(dict[str, str]().get, is_loaded=False)
    assert found[:2] == [
        "stages:  # in sub/dvc.yaml",
        "  check:  # below its `do`, in a foreach",
    ]
    assert "        promote: [-sub/check/mse]  # with a -, lower is better" in found
    assert found[6:9] == ["artifacts:  # in sub/dvc.yaml", "  m:", "    path: m.pt"]


def test_promote(project: Repository) -> None:
    """A row's model becomes the champion only if it is better on the same data.

    Rows share a model, as none of the params is the training's, so the champion's scores are those
    of its row. If the store is lost, the champion is the same.
    """
    (first,) = project.rows()
    assert promoted(project, first) == "v0.0.1"
    assert refused(project, first) == "it is the champion already (clf#champion#1)"
    best = row(project, a=3, b=2)
    assert best.outputs.model_outputs[0].model_id == first.outputs.model_outputs[0].model_id
    assert promoted(project, best) == "v0.0.2"
    why = "test/score 2.0 is not better than the champion's 3.0 (clf#champion#2)"
    assert refused(project, row(project, a=2)) == why
    other = row(project, rate=2, a=3, b=0)
    assert other.outputs.model_outputs[0].model_id != best.outputs.model_outputs[0].model_id
    assert promoted(project, other) == "v0.0.3"
    assert not [*project.path.rglob("*.ran")]
    loaded = mlflow.pyfunc.load_model("models:/clf@champion")
    assert loaded.predict([1]) == ["1\nrate: 2\n"]
    project.write({"test.txt": "2\n"})
    project.dvc("add", "-q", "test.txt")
    better = row(project, a=9)
    why = "its data is 26ab0db test.txt, the champion's is b026324 test.txt (clf#champion#3)"
    assert refused(project, better) == why
    lost = project.copy(project.path.with_name("lost"))
    assert lost.record("--all").status == 0
    assert aliases(lost) == {"champion": "v0.0.3"}
    (champion,) = (
        r
        for r in lost.rows()
        if (r.data.metrics["test/score"], r.data.metrics["test/loss"]) == (3, 0)
    )
    assert refused(lost, champion) == "it is the champion already (clf#champion#3)"


@pytest.mark.rest
def test_items(tmp_path: Path) -> None:
    """Each item of a foreach has a champion of its own, by its own key in `artifacts`."""
    item = "${item}"
    fit = {**train("test.txt"), "cmd": f"echo {item} > {item}.model", "outs": [f"{item}.model"]}
    del fit["plots"]
    check = evaluate(item, f"{item}.model", "test.txt")
    check["meta"] = {"mlflow": {"promote": ["check/score"]}}
    stages = {
        "fit": {"foreach": ["x", "y"], "do": fit},
        "check": {"foreach": ["x", "y"], "do": check},
    }
    artifacts = {f"clf-{n}": {"path": f"{n}.model", "type": "model", "meta": MODEL} for n in "xy"}
    project = project_of(tmp_path, stages, {"rate": 1, "x": 2, "y": 1}, artifacts=artifacts)
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
    known = {"run_id": run_id, "model": "clf", "alias": "champion", "commit": commit}
    said = promote(project, run_id, "--json")
    tags = ["clf@v0.0.1", "clf#champion#1"]
    assert json.loads(said.out) == {**known, "tags": tags, "promoted": True, "why": ""}
    assert (said.status, said.error) == (0, "")
    said = promote(project, "--json", run_id)
    why = "it is the champion already (clf#champion#1)"
    assert json.loads(said.out) == {**known, "tags": [], "promoted": False, "why": why}
    assert (said.status, said.error) == (1, "")
    said = promote(project, run_id, "--stage", "prod", "--dry-run")
    assert said == (f"would promote row {run_id}: clf at commit {commit[:7]}, prod\n", "", 0)
    assert aliases(project) == {"champion": "v0.0.1"}
    said = promote(project, run_id, "--stage", "prod")
    assert said.out.startswith("clf@v0.0.1 and clf#prod#2: at commit ")
    assert aliases(project) == {"champion": "v0.0.1", "prod": "v0.0.1"}
    assert project.git("tag").split() == ["clf#champion#1", "clf#prod#2", "clf@v0.0.1"]
    for stage in ("latest", "v1"):
        rule = f"MLflow allows no alias {stage!r}; choose another --stage"
        assert refused(project, first, "--stage", stage) == rule
    assert "Invalid value" in refused(project, first, "--stage", "x-")


def test_where_a_tag_is_made(project: Repository) -> None:
    """A version is registered at a commit or an experiment, never at a row's own commit.

    That would publish what was not tracked. The oldest commit of a branch has the tag.
    """
    better = row(project, commit=False, a=2)
    none = "git has no commit of its result; commit dvc.lock, then `dvc-mlflow record`"
    assert refused(project, better) == none
    own = project.git("for-each-ref", "--format=%(objectname)", "refs/rows")
    project.client.set_tag(better.info.run_id, "mlflow.source.git.commit", own)
    assert refused(project, better) == none
    project.commit("Better")
    project.commit("Nothing")
    project.record("--all")
    promoted(project, better)
    assert project.git("rev-list", "-n1", "clf@v0.0.1") == project.git("rev-parse", "HEAD~")
    project.dvc("exp", "run", "-q", "-n", "best", "-S", "a=3")
    project.git("checkout", "-q", ".")
    assert project.record("--all").status == 0
    found = [run for run in project.rows() if run.data.metrics["test/score"] == 3]
    promoted(project, found[0])
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
    assert not best.outputs.model_outputs
    said = promote(project, best.info.run_id)
    assert (said.status, said.error) == (0, "")
    mlflow.set_tracking_uri(f"sqlite:///{project.path}/mlflow.db")
    loaded = mlflow.pyfunc.load_model("models:/model@champion")
    assert loaded.predict([1]) == ["1\nrate: 2\n"]


def test_what_is_wrong_in_settings(project: Repository) -> None:
    """A setting that is wrong, and two models, are said with the rest."""
    (first,) = project.rows()
    told = json.loads((project.path / "dvc.yaml").read_text())
    told["stages"]["measure"]["meta"]["mlflow"]["promote"] = ["metrics.test/loss"]
    project.write({"dvc.yaml": json.dumps(told)})
    why = refused(project, first)
    assert why.startswith("dvc.yaml: stages.measure.meta.mlflow.promote: must be a list of")
    assert "promote: [test/score]" in why
    artifacts = {**ARTIFACTS, "curve": {"path": "curve.csv", "type": "model", "meta": MODEL}}
    told["stages"]["measure"]["meta"]["mlflow"]["promote"] = ["test/f1"]
    project.write({"dvc.yaml": json.dumps({**told, "artifacts": artifacts})})
    assert refused(project, first) == "it has no test/f1; it has 2 models: clf, curve"


def test_bytes_that_are_gone(made: Repository, tmp_path: Path) -> None:
    """A model whose bytes are nowhere is not promoted, and a line says so."""
    project = made.copy(tmp_path / "project")
    text = (project.path / "model.txt").read_bytes()
    for path in [project.path / "model.txt", *(project.path / ".dvc/cache").rglob("*")]:
        if path.is_file() and path.read_bytes() == text:
            path.unlink()
    project.record()
    (first,) = project.rows()
    why = "model.txt: its bytes are neither here nor in DVC's cache"
    assert refused(project, first) == why


def test_champion_that_somebody_chose(project: Repository) -> None:
    """An alias that somebody has given in MLflow stays, and a line says what git says."""
    (first,) = project.rows()
    (model,) = first.outputs.model_outputs
    mlflow.set_tracking_uri(f"sqlite:///{project.path}/mlflow.db")
    mlflow.register_model(f"models:/{model.model_id}", "clf")
    project.client.set_registered_model_alias("clf", "champion", "1")
    said = promote(project, first.info.run_id)
    assert said.error == (
        "dvc-mlflow: clf#champion#1: models:/clf@champion is version 1 in MLflow; git says v0.0.1\n"
    )
    assert aliases(project) == {"champion": "1"}


def test_rows_without_a_result(project: Repository) -> None:
    """Any row but a finished one with a result and a model is refused, with all reasons."""
    (good,) = project.rows()
    client, experiment = project.client, good.info.experiment_id
    for wrong in ("0" * 32, "x; touch file", "../x", "", "\x1b[31m"):
        assert refused(project, wrong).startswith("ROW must be a row's name")
    started = client.create_run(experiment).info.run_id
    why, *_ = refused(project, started).splitlines()
    assert why.startswith(
        "it has no test/score; it has no test/loss; it is RUNNING, not FINISHED; git has no commit"
    )
    client.delete_run(good.info.run_id)
    assert refused(project, good) == "it is in MLflow's trash"
    shutil.rmtree(project.path / ".dvc")
    assert "not inside of a DVC repository" in refused(project, good)


def test_champion_without_a_row(project: Repository) -> None:
    """If the champion's scores are gone, one line says what to do."""
    (first,) = project.rows()
    promoted(project, first)
    better = row(project, rate=5, a=2)
    project.client.delete_run(first.info.run_id)
    why = "MLflow has no row of the champion, clf#champion#1; `dvc-mlflow record --all`"
    assert refused(project, better) == why


def test_hostile_tags(project: Repository) -> None:
    """Whatever a store calls a row's commit, it leads nowhere and runs nothing."""
    (run,) = project.rows()
    for name in ("../../\x1b[31m'; DROP TABLE runs; --", "HEAD^{tree}", "--all", "HEAD", "f" * 40):
        project.client.set_tag(run.info.run_id, "mlflow.source.git.commit", name)
        assert refused(project, run).startswith("git has no commit of its result")
