"""The table shows by itself which result is best and what made it so."""

import base64
import hashlib
import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from mlflow.entities import Metric, Param, RunData, RunTag

from dvc_mlflow.pipeline.keys import tells
from dvc_mlflow.pipeline.measures import way
from dvc_mlflow.pipeline.tags import CHANGE, DATA, STAGE
from dvc_mlflow.store.table_view import by_default
from support.locked import evaluated, locked, row, trained
from support.pipelines import Stages, evaluate, makes, train
from support.rebuilding import columns

pytestmark = pytest.mark.filterwarnings("ignore")  # warnings from MLflow

BY_TIME = "attributes.start_time"


def measured(*deps: str, file: str) -> dict[str, Any]:
    """Return a stage whose metrics are in this file."""
    return {"cmd": "run", "deps": [*deps], "metrics": [{file: {"cache": False}}]}


def test_measures(tmp_path: Path) -> None:
    """Scores of the last evaluation are first, training's are late; what says nothing is last.

    The metrics of `meta.mlflow.promote` come before, and it says of them which is better.
    """
    stages: Stages = {
        "train": {**train("raw.txt"), "metrics": [{"m.json": {"cache": False}}]},
        "test": measured("model.txt", file="test.json"),
        "valid": measured("model.txt", "test.json", file="valid.json"),
    }
    test = '{"loss": 1, "acc": 0.5, "n": 3, "f1": {"cat": 1, "class_1": 1, "macro": 1}}'
    files = {"m.json": '{"acc": 1}', "test.json": test, "valid.json": '{"acc": 0.6}'}
    project = locked(tmp_path / "project", stages, {"rate": 1}, {**trained(), **files})
    scores = ["+test/acc", "+test/f1/cat", "+test/f1/class_1", "+test/f1/macro"]
    assert row(project).measures == ["+valid/acc", *scores, "-test/loss", "+train/acc", "?test/n"]
    stages["test"]["meta"] = {"mlflow": {"promote": ["test/loss", "-test/n"]}}
    project.write({"dvc.yaml": json.dumps({"stages": stages})})
    expected = ["+test/loss", "-test/n", "+valid/acc", *scores, "+train/acc"]
    assert row(project).measures == expected


WAYS = {
    "+": "a/acc loss/acc a/neg_mean_squared_error f1 a/f1_score val/roc_auc a/top5 mAP50 rocauc "
    "a/correctly_classified scores/x",
    "-": "loss a/val_loss a/MSE a/b.rmse a/logLoss mlogloss errors/max errors/lp4 false_rate",
    "": "a/terse a/max test/epoch a/step n loss_time a/acc_std score/seconds is_accurate",
}


@pytest.mark.parametrize(("sign", "keys"), WAYS.items())
def test_ways(sign: str, keys: str) -> None:
    """A metric's name says whether higher or lower is better, or nothing does."""
    assert {key: way(key) for key in keys.split()} == dict.fromkeys(keys.split(), sign)


def data(
    metrics: Mapping[str, float] = {},
    params: Mapping[str, object] = {},
    tags: Mapping[str, str] = {},
) -> RunData:
    """Return what MLflow has of a row."""
    return RunData(
        [Metric(key, value, 0, 0) for key, value in metrics.items()],
        [Param(key, f"{value}") for key, value in params.items()],
        [RunTag(*pair) for pair in tags.items()],
    )


def view(rows: list[RunData], *measures: str) -> tuple[list[str], str]:
    """Return the columns of a table and what sorts it, with a `-` if the lowest is first."""
    (text,) = by_default(rows, measures).values()
    packed = json.loads(text)["state"].removeprefix("deflate;")
    state = json.loads(zlib.decompress(base64.b64decode(packed)))
    key = state["orderByKey"].removeprefix("metrics.").strip("`")
    return [name.replace("`", "") for name in state["selectedColumns"]], (
        f"-{key}" if state["orderByAsc"] else key
    )


def test_what_differs() -> None:
    """Params that differ are columns, those that tell most rows apart first.

    What all rows have alike is no column and sorts nothing, unless there is one row only.
    """
    given = [("cat", 5), ("dog", 4), ("cow", 4), ("cow", 4)]
    rows = [data({"acc": n}, {"b": b, "c": c, "same": 1}) for n, (c, b) in enumerate(given)]
    assert view(rows, "+acc") == (["metrics.acc", "params.c", "params.b"], "acc")
    assert view(rows[2:], "+acc", "-loss") == (["metrics.acc"], "acc")
    rows = [data({"acc": 1, "loss": n}, {"a": 1}, {"commit": "1234567"}) for n in (1, 2)]
    assert view(rows, "+acc", "-loss") == (["metrics.loss"], "-loss")
    assert view([rows[0], rows[0]], "+acc", "-loss") == (["tags.commit"], BY_TIME)
    assert view(rows[:1], "+acc", "-loss", "-old") == (["metrics.acc", "metrics.loss"], "acc")
    assert view([*rows, data()], "+acc")[0] == ["metrics.acc"]  # one has none


def test_kinds_of_rows() -> None:
    """Rows of several stages, measured on several data, have columns that name these.

    Rows that have none of the first metric, such as those that compare others, show their own.
    """
    tags = [{STAGE: a, DATA: b, CHANGE: c} for a, b, c in ("123", "456")]
    expected = [f"tags.{STAGE}", f"tags.{DATA}", f"tags.{CHANGE}"]
    assert view([data(tags=each) for each in tags])[0] == expected
    assert view([data(tags=tags[0]), data(tags=tags[0]), data()])[0] == [f"tags.{CHANGE}"]
    rows = [data({"compare/acc": 1}), data({"a/acc": 1}), data({"a/acc": 2, "old/f1": 1}), data()]
    measures = ("?a/x", "+a/acc", "+old/f1", "+compare/acc")
    shown = ["metrics.a/acc", "metrics.compare/acc", "metrics.old/f1"]
    assert view(rows, *measures) == (shown, "a/acc")
    assert view([data({"a/x": 1})], "?a/x") == (["metrics.a/x"], BY_TIME)
    assert view([data()]) == ([f"tags.{CHANGE}"], BY_TIME)


def test_data_of_evaluations(tmp_path: Path) -> None:
    """They are what these read but for the model, each after the digits that differ.

    What is made from the model is no data, but what the stage that made it has read is.
    """
    stages: Stages = {
        "train": train("raw.txt"),
        "predict": makes({"p.txt": "1"}, deps=["model.txt", "test.txt"], outs=["p.txt"]),
        "a": evaluate("a", "model.txt", "deep/valid.txt"),
        "b": evaluate("b", "p.txt", "labels.txt"),
    }
    files = {**evaluated(), "p.txt": "1", "test.txt": "2", "labels.txt": "3"}
    files["deep/valid.txt"] = "2\n"
    tracked = ["raw.txt", "test.txt", "labels.txt", "deep/valid.txt"]
    found = row(locked(tmp_path / "project", stages, files=files, tracked=tracked)).data.split(", ")
    assert {each[8:] for each in found} == {"test.txt", "labels.txt", "deep/valid.txt"}
    md5 = hashlib.md5(b"2\n", usedforsecurity=False).hexdigest()
    assert f"{md5[:7]} deep/valid.txt" in found


TELLING: dict[str, object] = {"layers": [64, 32], "model.units": 25}
NOT_TELLING = {"datasets.0": "x", "1": "cancer", "batches": [{"id": 0}], "sizes": [[1]]}


def test_tells() -> None:
    """Elements of a list, and lists of other things than values, are no columns and in no name."""
    assert all(tells(key, value) for key, value in TELLING.items())
    assert not [key for key, value in NOT_TELLING.items() if tells(key, value)]


def test_in_the_store(tmp_path: Path) -> None:
    """The table follows its rows, until somebody chooses its columns in MLflow's own way."""
    stages = {"train": train("raw.txt"), "a": evaluate("a"), "b": evaluate("b")}
    project = locked(tmp_path / "project", stages, files=evaluated())
    project.add_store()
    project.commit()
    for params in ({"b": 2}, {"a": 5, "b": 3}):
        project.again(evaluated(**params), params)
        project.commit(f"{params}")
    project.record("--all")
    (row, *_) = project.rows()
    assert columns(project, row) == {
        "selectedColumns": ["metrics.`b/score`", "params.`b`", "params.`a`", "tags.`commit`"],
        "searchFilter": "tags.`dvc.stage` != ''",
        "orderByKey": "metrics.`b/score`",
        "orderByAsc": False,
    }
    key = "mlflow.sharedViewState.results"
    project.client.set_experiment_tag(row.info.experiment_id, key, "somebody's")
    project.again(evaluated(rate=2), {"rate": 2})
    project.record()
    assert len(project.rows()) == 4
    experiment = project.client.get_experiment(row.info.experiment_id)
    assert experiment.tags[key] == "somebody's"
