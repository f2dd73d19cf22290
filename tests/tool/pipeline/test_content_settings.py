"""`meta.mlflow` in dvc.yaml chooses the experiment and the table's columns."""

import json
from pathlib import Path

import pytest

from support.locked import evaluated, locked, read, trained
from support.pipelines import evaluate, train
from support.row_content import columns, lines, recorded
from support.stores import experiments

pytestmark = pytest.mark.filterwarnings("ignore")  # warnings from MLflow


@pytest.mark.pipeline
def test_settings(tmp_path: Path) -> None:
    """A stage can choose its experiment and the table's columns, sorted by the first one.

    What is wrong in dvc.yaml is said, and the row is there all the same.
    """
    meta = {"mlflow": {"experiment": "mine", "columns": ["-metrics.train/loss", "params.rate"]}}
    stages = {"train": {**train("raw.txt"), "meta": meta}, "a": evaluate("a")}
    stages["a"]["meta"] = {"mlflow": {"columns": ["params.rate", "metrics.a/score"]}}
    stages["b"] = {**evaluate("b"), "meta": {"mlflow": "text"}}
    project = locked(tmp_path / "project", stages, files=evaluated())
    project.commit()
    project.add_store()
    row, said = recorded(project)
    assert lines(said) == ["dvc.yaml: stages.b.meta.mlflow: must be a mapping; received 'text'"]
    assert said.out.startswith("mine: added ")
    assert project.client.get_experiment(row.info.experiment_id).name == "mine"
    assert columns(project, row) == {
        "selectedColumns": ["metrics.`train/loss`", "params.`rate`", "metrics.`a/score`"],
        "searchFilter": "tags.`dvc.stage` != ''",
        "orderByKey": "metrics.`train/loss`",
        "orderByAsc": True,
    }


def test_wrong_settings(tmp_path: Path) -> None:
    """Each mistake in dvc.yaml is reported in one line; everything else is recorded."""
    meta = {"mlflow": {"colums": [], "prefix": 5, "experiment": "mine"}}
    stages = {"train": {**train("raw.txt"), "meta": meta}, "a": evaluate("a")}
    stages["a"]["meta"] = {"mlflow": "text"}
    stages["b"] = {"foreach": ["x", "y"], "do": evaluate("${item}", "model.txt")}
    stages["b"]["do"]["meta"] = {"mlflow": {"unknown": 1}}
    artifacts = {"m": {"path": "nowhere", "type": "model", "meta": {"loader_modul": "x"}}}
    params = {"rate": 1, "a": 1, "x": 1, "y": 1}
    files = evaluated() | {f"{item}.json": '{"score": 1}\n' for item in "xy"}
    found = read(locked(tmp_path / "project", stages, params, files, artifacts=artifacts))
    (row,) = found.rows
    assert row.metrics == {"train/loss": 0.25, "a/score": 1, "b/x/score": 1, "b/y/score": 1}
    assert row.experiment == "mine"
    known = "known are experiment, prefix, columns, data, record, promote"
    start = "dvc.yaml: stages."
    assert {*found.problems} == {
        f"{start}train.meta.mlflow.colums: unknown key; {known}",
        f"{start}train.meta.mlflow.prefix: must be text, or empty for no prefix; received 5",
        f"{start}a.meta.mlflow: must be a mapping; received 'text'",
        f"{start}b.meta.mlflow.unknown: unknown key; {known}",
        "dvc.yaml: artifacts.m.meta.loader_modul: unknown key; did you mean loader_module?",
    }
    assert (len(found.problems), row.notes) == (5, [])


def test_of_today(tmp_path: Path) -> None:
    """What today's dvc.yaml says of a stage counts for its older results, too."""
    project = locked(tmp_path / "project", {"train": train("raw.txt")}, {"rate": 1}, trained())
    project.add_store()
    project.commit("Without settings")
    meta = {"mlflow": {"experiment": "mine", "prefix": ""}}
    stages = {"train": {**train("raw.txt"), "meta": meta}}
    project.again(trained(2) | {"dvc.yaml": json.dumps({"stages": stages})}, {"rate": 2})
    project.commit("With settings")
    assert project.record("--rev", "HEAD^").out.startswith("mine: added")
    assert project.record("--all").out.startswith("mine: 1 row added")
    assert experiments(project) == ["mine"]
    assert {key for row in project.rows() for key in row.data.metrics} == {"loss"}
