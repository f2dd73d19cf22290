"""Each model of a pipeline has its row, also those of a foreach or another model."""

import json
from pathlib import Path
from typing import Any

import pytest

from support.locked import locked, read, row, trained
from support.pipelines import evaluate, train

pytestmark = [
    pytest.mark.versions,
    pytest.mark.filterwarnings("ignore"),  # warnings from MLflow
]


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


def test_items_are_chains_of_their_own(tmp_path: Path) -> None:
    """Each item of a foreach has its own row, with the same columns as the other items."""
    stages = items(train=train("raw.txt"), a=evaluate("a"))
    first, second = read(locked(tmp_path / "project", stages, files=TWO)).rows
    assert {*first.digests} == {*second.digests} == {"train", "a"}
    assert {found.params["item"] for found in (first, second)} == {"x", "y"}
    assert first.metrics == second.metrics == {"train/loss": 0.25, "a/score": 1}
    assert first.name != second.name
    assert not first.digests.items() & second.digests.items()


def test_items_of_one_model(tmp_path: Path) -> None:
    """Items that evaluate one recorded model are in its row, under their own names."""
    stages = {"train": train("raw.txt"), **items(a=evaluate("a"))}
    stages["a"]["do"]["deps"] = ["model.txt"]
    found = row(locked(tmp_path / "project", stages, files={**ONE, **TWO}))
    assert {*found.digests} == {"train", "a/x", "a/y"}
    assert found.metrics == {"train/loss": 0.25, "a/x/score": 1, "a/y/score": 1}


def test_comparison_of_two_models(tmp_path: Path) -> None:
    """A stage that reads two models has its own row; the models' rows are unchanged."""
    stages = items(train=train("raw.txt"), a=evaluate("a"))
    stages["b"] = evaluate("b", "model-x.txt", "model-y.txt")
    project = locked(tmp_path / "project", stages, files={**TWO, "b.json": SCORE})
    found = read(project).rows
    assert sorted(sorted(each.digests) for each in found) == [["a", "train"], ["a", "train"], ["b"]]
    (comparison,) = (each for each in found if {*each.digests} == {"b"})
    assert comparison.metrics == {"b/score": 1}
    assert comparison.params["rate"] == "1"


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
