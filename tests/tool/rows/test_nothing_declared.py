"""A pipeline that declares no metrics, curves or models has rows of its last stages."""

import json
from pathlib import Path

import pytest

from support.following import followed, following
from support.locked import evaluated, locked, trained
from support.pipelines import evaluate, makes, prepare, repository, train

pytestmark = [
    pytest.mark.pipeline,
    pytest.mark.filterwarnings("ignore"),  # warnings from MLflow
]


def test_last_stages(tmp_path: Path) -> None:
    """They have params, md5s and files; a line says how to declare metrics, which then helps."""
    train = makes({"score.json": '{"score": 3}'}, deps=["data.txt"], params=["rate"])
    stages = {"prepare": prepare(), "train": {**train, "outs": ["score.json"]}}
    project = repository(tmp_path / "project", stages)
    project.dvc("repro", "-q")
    project.commit("The results")
    said = project.record()
    assert "declares no metrics, curves or models, so the last stages are recorded" in said.error
    assert "declares no metrics, curves or models" in project.record("--all").error
    (row,) = project.rows()
    assert (row.data.params, row.data.metrics) == ({"rate": "1"}, {})
    assert row.data.tags["dvc.stage"] == "train"
    assert {"md5.data.txt", "md5.score.json"} <= row.data.tags.keys()
    assert project.artifacts(row) == ["score.json"]
    stages["train"] = {**train, "metrics": ["score.json"]}
    project.write({"dvc.yaml": json.dumps({"stages": stages})})
    said = project.record()
    assert (said.error, "completed" in said.out) == ("", True)
    (row,) = project.rows()
    assert row.data.metrics == {"train/score": 3}


def test_live(tmp_path: Path) -> None:
    """They have live rows; a metric declared elsewhere ends that."""
    project = repository(tmp_path / "project", {"prepare": prepare()})
    with following(project):
        followed(project, "repro")
        (row,) = project.rows()
        assert (row.data.tags["dvc.stage"], row.info.status) == ("prepare", "FINISHED")
        stages = {"prepare": prepare(), "a": evaluate("a", "data.txt")}
        project.write({"dvc.yaml": json.dumps({"stages": stages}), "raw.txt": "2\n"})
        followed(project, "repro")
    assert [row.data.tags["dvc.stage"] for row in project.rows()] == ["prepare", "a"]


def test_why_there_are_no_rows(tmp_path: Path) -> None:
    """Zero rows is said as that, with what to do; doing it gives rows."""
    project = repository(tmp_path / "project", {"a": evaluate("a", "raw.txt")})
    said = project.record("--all")
    assert said.out == ""
    none = "dvc-mlflow: 0 rows: no commit has a result of a recorded stage in its dvc.lock"
    why = "stage a is not recorded: dvc.lock has no result of it"
    assert said.error.splitlines() == [none, f"dvc-mlflow: {why}; run `dvc repro`"]
    project.dvc("repro", "-q")
    uncommitted = "the result in dvc.lock is not committed; `dvc-mlflow record` adds its row"
    assert uncommitted in project.record("--all").out
    assert "added" in project.record().out
    project.commit("The result")
    assert project.record("--all").out.startswith("nothing to do")
    (row,) = project.rows()
    project.client.delete_run(row.info.run_id)
    trash = f"left in MLflow's trash: run {row.info.run_id} (a); --deleted restores it\n"
    assert [project.record(*words).out.startswith(trash) for words in ([], ["--all"])] == [True] * 2


def test_outdated(tmp_path: Path) -> None:
    """Numbers that are not of the data beside them are in no row, and a line names the commit."""
    stages = {"train": train("raw.txt"), "a": evaluate("a")}
    project = locked(tmp_path / "project", stages, {"rate": 1, "a": 1}, evaluated())
    project.commit("A result")
    project.again(trained(2), {"rate": 2}, "train")
    project.commit("Only a training")
    head = project.git("rev-parse", "--short=7", "HEAD")
    said = project.record("--all")
    why = "stage a is not recorded: it has read a different model.txt than train has written"
    assert f"dvc-mlflow: {head}: {why}\n" in said.error
    assert {row.data.metrics.get("a/score") for row in project.rows()} == {1, None}


def test_unknown_stages(tmp_path: Path) -> None:
    """A name of no stage is refused, for the checkout and for a history."""
    project = repository(tmp_path / "project", {"a": evaluate("a", "raw.txt")})
    project.dvc("repro", "-q")
    project.commit("The result")
    for which in ([], ["--all"], ["--rev", "HEAD"]):
        said = project.record(*which, "--stages", "a,b")
        assert said.status == 1
        assert said.error == "dvc-mlflow: --stages: no stage is named 'b'; known are ['a']\n"
    assert project.rows() == []
