"""Params, data and outputs of the recorded stages decide the row; code does not."""

import json
from pathlib import Path

import pytest

from support.locked import Table, evaluated, locked, read, row
from support.pipelines import (
    TWO_EVALUATIONS,
    evaluate,
    prepare,
    train,
)

pytestmark = [
    pytest.mark.versions,
    pytest.mark.filterwarnings("ignore"),  # warnings from MLflow
]


THREE = {"prepare": prepare(), "train": train(), "a": evaluate("a")}
"""One evaluation of a model whose data are prepared."""


def test_changed_param_with_the_same_model(tmp_path: Path) -> None:
    """A changed param makes another row, even if the model's bytes are the same."""
    stages = {"train": {**train("raw.txt"), "cmd": "cp raw.txt model.txt; : > curve.csv"}}
    files = {"model.txt": "1\n", "curve.csv": ""}
    project, table = locked(tmp_path / "project", stages, files=files), Table()
    table.record(project)
    project.again({}, {"rate": 2})
    table.record(project)
    assert [found.params["rate"] for found in table.rows] == ["1", "2"]
    assert len({found.tags["md5.model.txt"] for found in table.rows}) == 1


@pytest.mark.parametrize("in_git", [True, False], ids=["git", "dvc"])
def test_other_test_data(tmp_path: Path, in_git: bool) -> None:
    """Other test data makes another row, in DVC or in git, even if the score is the same."""
    stages = {"train": train("raw.txt"), "a": evaluate("a", "model.txt", "test.txt")}
    if in_git:
        stages["a"]["meta"] = {"mlflow": {"data": ["test.txt"]}}
    project = locked(
        tmp_path / "project",
        stages,
        files={**evaluated(), "test.txt": "1\n"},
        tracked=[] if in_git else ["test.txt"],
    )
    table = Table()
    table.record(project)
    project.write({"test.txt": "2\n"})
    if not in_git:
        project.track("test.txt")
    project.ran()
    table.record(project)
    before, after = (found.inputs for found in table.rows)
    assert before["test.txt"] != after["test.txt"]
    assert before["model.txt"] == after["model.txt"]


def test_code_kept_in_git_is_no_data(tmp_path: Path) -> None:
    """A file in git that is not declared as data counts as code, and changes no row."""
    stages = {"train": train("raw.txt"), "a": evaluate("a", "model.txt", "code.txt")}
    project = locked(tmp_path / "project", stages, files={**evaluated(), "code.txt": "1\n"})
    before = row(project)
    project.again({"code.txt": "2\n"})
    assert row(project).digests == before.digests
    assert [*before.inputs] == ["model.txt"]


def test_stale_in_the_middle(tmp_path: Path) -> None:
    """A stage is not recorded if one upstream is stale, though its own inputs are as written."""
    project = locked(tmp_path / "project", THREE, files=evaluated())
    project.again({"raw.txt": "2\n", "data.txt": "2\n"}, {}, "prepare")
    found = read(project)
    assert found.rows == []
    assert found.reasons == {
        "train": "it has read a different data.txt than prepare has written",
        "a": "stage train, upstream of it, must run first",
    }


@pytest.mark.pipeline
def test_nothing_has_run(tmp_path: Path) -> None:
    """Before the first `dvc repro` there is nothing to record."""
    project = locked(tmp_path / "project", TWO_EVALUATIONS, files=evaluated())
    (project.path / "dvc.lock").unlink()
    said = project.record()
    assert said.status == 0
    assert (
        "stage train is not recorded: dvc.lock has no result of it; run `dvc repro`" in said.error
    )
    assert not (project.path / "mlflow.db").exists()


def test_stage_without_outputs(tmp_path: Path) -> None:
    """A stage without outputs has a row for each value of its params."""
    stages = {"train": train("raw.txt"), "say": {"cmd": "echo", "params": ["a"]}}
    project, table = locked(tmp_path / "project", stages, files=evaluated()), Table()
    project.choose("train", "say")
    table.record(project)
    project.again({}, {"a": 2})
    table.record(project)
    found = {(*each.digests, each.params.get("a")) for each in table.rows}
    assert found == {("train", None), ("say", "1"), ("say", "2")}
    assert len(table.rows) == 3


def test_persist(tmp_path: Path) -> None:
    """Each run of a stage with a persistent output has its own row."""
    stage = {"cmd": "run", "deps": ["raw.txt"], "outs": [{"log.txt": {"persist": True}}]}
    stages = {"grow": {**stage, "metrics": [{"n.json": {"cache": False}}]}}
    files = {"log.txt": "1\n", "n.json": '{"n": 1}'}
    project, table = locked(tmp_path / "project", stages, files=files), Table()
    table.record(project)
    project.again({"log.txt": "1\n1\n"})
    table.record(project)
    assert len({found.tags["md5.log.txt"] for found in table.rows}) == 2


def test_which_stages(tmp_path: Path) -> None:
    """The stages with the prefix are recorded, and those that dvc.yaml chooses."""
    project = locked(tmp_path / "project", THREE, files=evaluated())
    assert {*row(project).digests} == {"train", "a"}
    for chosen in (("a",), ("prepare", "train")):
        project.choose(*chosen)
        assert {*row(project).digests} == {*chosen}
    command = f"dvc-mlflow run sh -c {json.dumps(THREE['train']['cmd'])}"
    stages = {**THREE, "train": {**THREE["train"], "cmd": command}}
    project.write({"dvc.yaml": json.dumps({"stages": stages})})
    assert {*row(project).digests} == {"train"}


def test_what_an_unrecorded_stage_has(tmp_path: Path) -> None:
    """Metrics of an unrecorded stage are in the row of the first recorded stage below it."""
    stages = {**THREE, "prepare": {**prepare(), "metrics": [{"n.json": {"cache": False}}]}}
    project = locked(
        tmp_path / "project", stages, files={**evaluated(), "n.json": '{"lines": 1}\n'}
    )
    project.choose("train", "a")
    found = row(project)
    assert {*found.digests} == {"train", "a"}
    assert found.metrics == {"prepare/lines": 1, "train/loss": 0.25, "a/score": 1}
