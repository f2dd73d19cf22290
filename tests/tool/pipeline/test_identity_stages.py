"""Params, data and outputs of the recorded stages decide the row; code does not.

Each model of a pipeline has its row, also those of a foreach or another model.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from support.locked import Table, evaluated, locked, read, row, trained
from support.pipelines import evaluate, prepare, train

pytestmark = [
    pytest.mark.versions,
    pytest.mark.filterwarnings("ignore"),  # warnings from MLflow
]


THREE = {"prepare": prepare(), "train": train(), "a": evaluate("a")}
"""One evaluation of a model whose data are prepared."""


def test_other_test_data(tmp_path: Path) -> None:
    """Other test data makes another row, even if the score is the same.

    A file in git that is not declared as data counts as code, and changes no row.
    """
    files, tracked = {**evaluated(), "test.txt": "1\n"}, {"dvc": ["test.txt"]}
    for kind, data in {"dvc": [], "git": ["test.txt"], "code": []}.items():
        stages = {"train": train("raw.txt"), "a": evaluate("a", "model.txt", "test.txt")}
        stages["a"]["meta"] = {"mlflow": {"data": data}}
        own = tracked.get(kind, [])
        project, table = locked(tmp_path / kind, stages, files=files, tracked=own), Table()
        table.record(project)
        project.write({"test.txt": "2\n"})
        for path in own:
            project.track(path)
        project.ran()
        table.record(project)
        inputs = [each.inputs for each in table.rows]
        assert len({each.get("test.txt") for each in inputs}) == (1 if kind == "code" else 2)
        assert len(inputs) == (1 if kind == "code" else 2), kind
        assert len({each["model.txt"] for each in inputs}) == 1


def test_which_stages(tmp_path: Path) -> None:
    """The stages with the prefix are recorded, and those that dvc.yaml chooses.

    Metrics of one that is not are in the row of the first recorded stage below it.
    """
    stages = {**THREE, "prepare": {**prepare(), "metrics": [{"n.json": {"cache": False}}]}}
    project = locked(tmp_path / "project", stages, files={**evaluated(), "n.json": '{"n": 1}\n'})
    for chosen in (("a",), ("prepare", "train"), ("train", "a")):
        project.choose(*chosen)
        assert {*row(project).digests} == {*chosen}
    assert row(project).metrics == {"prepare/n": 1, "train/loss": 0.25, "a/score": 1}
    project.write({"dvc.yaml": json.dumps({"stages": THREE})})
    assert {*row(project).digests} == {"train", "a"}
    command = f"dvc-mlflow run sh -c {json.dumps(THREE['train']['cmd'])}"
    stages = {**THREE, "train": {**THREE["train"], "cmd": command}}
    project.write({"dvc.yaml": json.dumps({"stages": stages})})
    assert {*row(project).digests} == {"train"}


def items(**stages: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return these stages for each of two items, with files and params named after the item."""
    text = json.dumps(stages).replace(".txt", "-${item}.txt").replace(".json", "-${item}.json")
    text = text.replace("raw-${item}", "raw").replace(".csv", "-${item}.csv")
    return {name: {"foreach": ["x", "y"], "do": do} for name, do in json.loads(text).items()}


SCORE = '{"score": 1}\n'
ONE = {**trained(), "a.json": SCORE}
"""What `train` and `a` write."""
TWO = {path.replace(".", f"-{item}."): text for item in "xy" for path, text in ONE.items()}
"""What they write for each of two items."""


def test_items(tmp_path: Path) -> None:
    """Each item of a foreach has its own row, with the same columns as the other items.

    A stage that reads two models has its own row; the models' rows are unchanged.
    """
    stages = items(train=train("raw.txt"), a=evaluate("a"))
    first, second = read(locked(tmp_path / "items", stages, files=TWO)).rows
    assert {*first.digests} == {*second.digests} == {"train", "a"}
    assert {found.params["item"] for found in (first, second)} == {"x", "y"}
    assert first.metrics == second.metrics == {"train/loss": 0.25, "a/score": 1}
    assert first.name != second.name
    assert not first.digests.items() & second.digests.items()
    stages["b"] = evaluate("b", "model-x.txt", "model-y.txt")
    found = read(locked(tmp_path / "compared", stages, files={**TWO, "b.json": SCORE})).rows
    (comparison,) = (each for each in found if {*each.digests} == {"b"})
    assert comparison.metrics == {"b/score": 1}
    assert comparison.params["rate"] == "1"
    models = [each.digests for each in found if each is not comparison]
    assert models == [first.digests, second.digests]


def test_items_of_one_model(tmp_path: Path) -> None:
    """Items that evaluate one recorded model are in its row, under their own names."""
    stages = {"train": train("raw.txt"), **items(a=evaluate("a"))}
    stages["a"]["do"]["deps"] = ["model.txt"]
    found = row(locked(tmp_path / "project", stages, files={**ONE, **TWO}))
    assert {*found.digests} == {"train", "a/x", "a/y"}
    assert found.metrics == {"train/loss": 0.25, "a/x/score": 1, "a/y/score": 1}


def test_models_behind_one_another(tmp_path: Path) -> None:
    """A model made from another has a row with both; the first keeps a row with its evaluation."""
    second = {
        "cmd": "python tune.py",
        "deps": ["model.txt"],
        "params": ["b"],
        "outs": ["model2.txt"],
        "plots": [{"second.csv": {"cache": False, "x": "step"}}],
    }
    stages = {"train": train("raw.txt"), "a": evaluate("a"), "tune": second}
    files = {**ONE, "model2.txt": "2\n", "second.csv": "step,loss\n1,0.1\n"}
    found = read(locked(tmp_path / "project", stages, files=files)).rows
    assert sorted(sorted(each.digests) for each in found) == [["a", "train"], ["train", "tune"]]
