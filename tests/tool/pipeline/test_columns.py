"""The table shows by itself which result is best and what made it so."""

import json
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from dvc_mlflow.pipeline.evaluations import is_lower_better
from support.clone import environment
from support.following import following
from support.locked import evaluated, locked, read, row, trained, united
from support.pipelines import Repository, Stages, evaluate, makes, repository, train
from support.row_content import columns
from support.waiting import wait

pytestmark = [
    pytest.mark.filterwarnings("ignore"),  # warnings from MLflow
]


def view(project: Repository) -> dict[str, Any]:
    """Return what the table of a repository shows."""
    return columns(project, project.rows()[0])


def measures(values: Mapping[str, float], *deps: str, file: str, **more: Any) -> dict[str, Any]:
    """Return a stage that writes these metrics."""
    return makes(
        {file: json.dumps(values)}, deps=[*deps], metrics=[{file: {"cache": False}}], **more
    )


def test_metrics_of_the_evaluations(tmp_path: Path) -> None:
    """The metrics of what trains or prepares are no columns; those of the last stage are first."""
    stages = {
        "prepare": makes(
            {"data.txt": "1", "rows.json": '{"rows": 5}'},
            outs=["data.txt"],
            metrics=[{"rows.json": {"cache": False}}],
        ),
        "train": {**train("data.txt"), "metrics": [{"m.json": {"cache": False}}]},
        "test": measures({"loss": 1, "acc": 0.5}, "model.txt", file="test.json"),
        "valid": measures({"acc": 0.6}, "model.txt", "test.json", file="valid.json"),
    }
    files = {"data.txt": "1", "rows.json": '{"rows": 5}', "m.json": '{"acc": 1}', **trained()}
    files |= {"test.json": '{"loss": 1, "acc": 0.5}', "valid.json": '{"acc": 0.6}'}
    project = locked(tmp_path / "project", stages, {"rate": 1}, files)
    project.commit()
    assert row(project).shown == [
        "metrics.valid/acc",  # it sorts the table: the highest is first
        "-metrics.test/loss",
        "metrics.test/acc",
        "tags.commit",
    ]


def test_one_stage(tmp_path: Path) -> None:
    """Where one stage does all, its metrics are columns; the lowest loss is first."""
    files = {"m.json": '{"val_loss": 2, "f1": 0.5}', "model.txt": "1"}
    stage = makes(files, params=["rate"], metrics=["m.json"], outs=["model.txt"])
    project = locked(tmp_path / "project", {"train": stage}, {"rate": 1}, files)
    project.commit()
    project.add_store()
    project.record()
    assert view(project) == {
        "selectedColumns": ["metrics.`train/val_loss`", "metrics.`train/f1`", "tags.`commit`"],
        "searchFilter": "",
        "orderByKey": "metrics.`train/val_loss`",
        "orderByAsc": True,
    }


def test_promote_decides(tmp_path: Path) -> None:
    """The metrics of `meta.mlflow.promote` are first, and it says of them which is better."""
    meta = {"mlflow": {"promote": ["test/loss", "-test/acc"]}}
    values = {"n": 1, "acc": 1, "loss": 1}
    stages = {
        "train": train("raw.txt"),
        "test": measures(values, "model.txt", file="test.json", meta=meta),
    }
    files = {**trained(), "test.json": json.dumps(values)}
    project = locked(tmp_path / "project", stages, {"rate": 1}, files)
    found = row(project).shown[:3]
    assert found == ["metrics.test/loss", "-metrics.test/acc", "metrics.test/n"]


def test_params_that_differ(tmp_path: Path) -> None:
    """Params become columns once a row has another value than the one that it started from."""
    stages = {"train": train("raw.txt"), "a": evaluate("a"), "b": evaluate("b")}
    project = locked(tmp_path / "project", stages, files=evaluated())
    project.commit()
    metrics = ["metrics.b/score", "metrics.a/score"]
    every = [row(project).shown]
    assert every == [[*metrics, "tags.commit"]]
    for params, own, more in [
        ({"b": 2}, ["b"], ["b"]),
        ({"a": 5, "b": 3}, ["a", "b"], ["b", "a"]),
        ({}, [], ["b", "a"]),
    ]:
        project.again(evaluated(**params) if params else {}, params)
        project.commit(f"{params}")
        every.append(row(project, rev="HEAD").shown)
        assert every[-1] == [*metrics, *(f"params.{name}" for name in own), "tags.commit"]
        assert united(*every) == [*metrics, *(f"params.{name}" for name in more), "tags.commit"]
    project.add_store()
    project.record("--all")  # the newest row comes first
    quoted = ["metrics.`b/score`", "metrics.`a/score`", "params.`a`", "params.`b`", "tags.`commit`"]
    assert view(project) == {
        "selectedColumns": quoted,
        "searchFilter": "",
        "orderByKey": "metrics.`b/score`",
        "orderByAsc": False,
    }


def test_eight_at_most(tmp_path: Path) -> None:
    """Eight metrics and eight params are shown, the first ones, and none goes."""
    names = [f"p{i}" for i in range(10)]
    files = {"m.json": json.dumps({f"m{i}": i for i in range(10)})}
    stage = makes(files, params=names, metrics=["m.json"])
    project = locked(tmp_path / "project", {"train": stage}, dict.fromkeys(names, 1), files)
    project.commit()
    every = []
    for name in reversed(names):
        project.again({}, {name: 2})
        every.append(row(project).shown)
    expected = [f"metrics.train/m{i}" for i in range(8)]
    expected += [f"params.{name}" for name in [*reversed(names)][:8]]
    assert united(*every) == [*expected, "tags.commit"]


def test_items_and_their_comparison(tmp_path: Path) -> None:
    """The item is a column; a comparison's row fills the table of the items with no dashes."""
    files = {f"{item}.{end}": '{"acc": 1}' for item in "xy" for end in ("model", "json")}
    stages: Stages = {
        "fit": {
            "foreach": ["x", "y"],
            "do": {
                "cmd": "python fit.py ${item}",
                "outs": ["${item}.model"],
                "metrics": [{"${item}.json": {"cache": False}}],
            },
        },
        "compare": measures({"best": 1}, "x.model", "y.model", file="best.json"),
    }
    project = locked(tmp_path / "project", stages, files={**files, "best.json": '{"best": 1}'})
    project.commit()
    columns = {found.tags["dvc.stage"]: found.shown for found in read(project).rows}
    of_item = ["metrics.fit/acc", "params.item", "tags.commit"]
    assert columns == {"fit@x": of_item, "fit@y": of_item, "compare": []}


@pytest.mark.pipeline
def test_while_it_runs(tmp_path: Path) -> None:
    """The first row that runs has columns, though it has no metrics: the newest row is first."""
    stages = {"train": train("raw.txt"), "a": evaluate("a")}
    stages["train"]["cmd"] += f"; until [ -e {tmp_path}/go ]; do sleep 0.1; done; exit 3"
    project = repository(tmp_path / "project", stages)
    project.set({"rate": 5})
    with following(project):
        running = subprocess.Popen(["dvc", "repro", "-q"], cwd=project.path, env=environment())
        wait(project.rows)
        (tmp_path / "go").touch()
        assert running.wait(60) != 0
    assert view(project) == {
        "selectedColumns": ["params.`rate`", "tags.`commit`"],
        "searchFilter": "",
        "orderByKey": "attributes.start_time",
        "orderByAsc": False,
    }


def test_own_choice(tmp_path: Path) -> None:
    """Columns that somebody has chosen in MLflow's own way stay."""
    stages = {"train": train("raw.txt"), "a": evaluate("a")}
    project = locked(tmp_path / "project", stages, files=evaluated())
    project.add_store()
    project.record()
    (row,) = project.rows()
    key = "mlflow.sharedViewState.results"
    project.client.set_experiment_tag(row.info.experiment_id, key, "somebody's")
    project.again(evaluated(rate=2), {"rate": 2})
    project.record()
    assert len(project.rows()) == 2
    experiment = project.client.get_experiment(row.info.experiment_id)
    assert experiment.tags[key] == "somebody's"


@pytest.mark.parametrize(
    "key", ["loss", "a/val_loss", "a/MSE", "a/b.rmse", "a/logLoss", "mlogloss"]
)
def test_lower_is_better(key: str) -> None:
    """A metric's name says that lower is better."""
    assert is_lower_better(key)


@pytest.mark.parametrize("key", ["a/acc", "loss/acc", "a/neg_mean_squared_error", "f1", "a/terse"])
def test_higher_is_better(key: str) -> None:
    """A metric's name does not say so, nor does its stage's."""
    assert not is_lower_better(key)
