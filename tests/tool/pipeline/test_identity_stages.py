"""Params, data and outputs of the recorded stages decide the row; code does not."""

import json
from pathlib import Path

import pytest

from support.pipelines import (
    TWO_EVALUATIONS,
    evaluate,
    prepare,
    repository,
    reproduce,
    results,
    train,
)

pytestmark = [
    pytest.mark.pipeline,
    pytest.mark.versions,
    pytest.mark.filterwarnings("ignore"),  # warnings from MLflow
]


def test_changed_param_with_the_same_model(tmp_path: Path) -> None:
    """A changed param makes another row, even if the model's bytes are the same."""
    stages = {"train": {**train("raw.txt"), "cmd": "cp raw.txt model.txt; : > curve.csv"}}
    project = repository(tmp_path / "project", stages)
    reproduce(project)
    reproduce(project, {"rate": 2})
    assert [row.data.params["rate"] for row in project.rows()] == ["1", "2"]
    assert len({row.data.tags["md5.model.txt"] for row in project.rows()}) == 1


@pytest.mark.parametrize("in_git", [True, False], ids=["git", "dvc"])
def test_other_test_data(tmp_path: Path, in_git: bool) -> None:
    """Other test data makes another row, in DVC or in git, even if the score is the same."""
    stages = {"train": train("raw.txt"), "a": evaluate("a", "model.txt", "test.txt")}
    if in_git:
        stages["a"]["meta"] = {"mlflow": {"data": ["test.txt"]}}
    files = {"test.txt": "1\n"}
    project = repository(
        tmp_path / "project", stages, files=files, data=[] if in_git else ["test.txt"]
    )
    reproduce(project)
    project.write({"test.txt": "2\n"})
    if not in_git:
        project.dvc("add", "-q", "test.txt")
    reproduce(project)
    assert len(project.rows()) == 2
    inputs = [
        {i.dataset.name: i.dataset.digest for i in r.inputs.dataset_inputs} for r in project.rows()
    ]
    assert inputs[0]["test.txt"] != inputs[1]["test.txt"]
    assert inputs[0]["model.txt"] == inputs[1]["model.txt"]


def test_code_kept_in_git_is_no_data(tmp_path: Path) -> None:
    """A file in git that is not declared as data counts as code, and changes no row."""
    stages = {"train": train("raw.txt"), "a": evaluate("a", "model.txt", "code.txt")}
    project = repository(tmp_path / "project", stages, files={"code.txt": "1\n"})
    reproduce(project)
    project.write({"code.txt": "2\n"})
    reproduce(project)
    (row,) = project.rows()
    assert [i.dataset.name for i in row.inputs.dataset_inputs] == ["model.txt"]


def test_stale_in_the_middle(tmp_path: Path) -> None:
    """A stage is not recorded if one upstream is stale, though its own inputs are as written."""
    stages = {"prepare": prepare(), "train": train(), "a": evaluate("a")}
    project = repository(tmp_path / "project", stages)
    project.dvc("repro", "-q")
    project.write({"raw.txt": "2\n"})
    project.dvc("repro", "-q", "-s", "prepare")
    said = project.record()
    assert project.rows() == []
    assert "stage train is not recorded: it has read a different data.txt" in said.error
    assert "stage a is not recorded: stage train, upstream of it, must run first" in said.error


def test_nothing_has_run(tmp_path: Path) -> None:
    """Before the first `dvc repro` there is nothing to record."""
    project = repository(tmp_path / "project", TWO_EVALUATIONS)
    project.remove_store()
    said = project.record()
    assert said.status == 0
    assert (
        "stage train is not recorded: dvc.lock has no result of it; run `dvc repro`" in said.error
    )
    assert project.rows() == []
    assert not (project.path / "mlflow.db").exists()


def test_stage_without_outputs(tmp_path: Path) -> None:
    """A stage without outputs has a row for each value of its params."""
    stages = {"train": train("raw.txt"), "say": {"cmd": "echo", "params": ["a"]}}
    project = repository(tmp_path / "project", stages)
    project.dvc("repro", "-q")
    project.record("--stages", "train,say")
    project.set({"a": 2})
    project.dvc("repro", "-q")
    project.record("--stages", "train,say")
    found = {(*results(row), row.data.params.get("a")) for row in project.rows()}
    assert found == {("train", None), ("say", "1"), ("say", "2")}


def test_persist(tmp_path: Path) -> None:
    """Each run of a stage with a persistent output has its own row."""
    stage = {
        "cmd": "cat raw.txt >> log.txt; echo '{\"n\": 1}' > n.json",
        "deps": ["raw.txt"],
        "outs": [{"log.txt": {"persist": True}}],
        "metrics": [{"n.json": {"cache": False}}],
    }
    project = repository(tmp_path / "project", {"grow": stage})
    reproduce(project)
    reproduce(project, {}, "-f")
    assert len({row.data.tags["md5.log.txt"] for row in project.rows()}) == 2


def test_which_stages(tmp_path: Path) -> None:
    """The stages with the prefix are recorded, or those that --stages names."""
    stages = {"prepare": prepare(), "train": train(), "a": evaluate("a")}
    project = repository(tmp_path / "project", stages)
    project.dvc("repro", "-q")
    for chosen, expected in (("a", {"a"}), ("prepare,train", {"prepare", "train"})):
        project.record("--stages", chosen)
        assert expected in map(results, project.rows())
    said = project.record("--stages", "train,nothing")
    assert said.status == 1
    assert "no stage is named 'nothing'; known are ['a', 'prepare', 'train']" in said.error
    stages["train"]["cmd"] = f"dvc-mlflow run sh -c {json.dumps(stages['train']['cmd'])}"
    project.write({"dvc.yaml": json.dumps({"stages": stages})})
    project.remove_store()
    assert "(train)" in project.record("--dry-run").out


def test_what_an_unrecorded_stage_has(tmp_path: Path) -> None:
    """Metrics of an unrecorded stage are in the row of the first recorded stage below it."""
    stages = {"prepare": {**prepare(), "metrics": [{"n.json": {"cache": False}}]}}
    stages["prepare"]["cmd"] += "; echo '{\"lines\": 1}' > n.json"
    stages |= {"train": train(), "a": evaluate("a")}
    project = repository(tmp_path / "project", stages)
    project.dvc("repro", "-q")
    project.record("--stages", "train,a")
    (row,) = project.rows()
    assert results(row) == {"train", "a"}
    assert row.data.metrics == {"prepare/lines": 1, "train/loss": 0.25, "a/score": 1}
