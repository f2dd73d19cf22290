"""Plots with one line per step are curves in MLflow; other plots are artifacts."""

import json
from pathlib import Path
from typing import Any

import mlflow
import pytest

from support.pipelines import makes
from support.row_content import UNCACHED, columns, curve, ran, recorded

pytestmark = [
    pytest.mark.pipeline,
    pytest.mark.filterwarnings("ignore"),  # warnings from MLflow
]


def test_curves(tmp_path: Path) -> None:
    """A table with one line per step becomes a curve, whatever its format, with or without `x`."""
    stages = {
        "csv": makes({"a.csv": "n,step,loss\n9,1,0.5\n8,2,0.25"}, plots=["a.csv"]),
        "x": makes({"x.tsv": "t\tstep\tl\n1\t5\t0.5\n2\t5\tnan\n"}, plots=[{"x.tsv": {"x": "t"}}]),
        "json": makes(
            {"j.jsonl": '{"step": 0, "a": {"b": 1}}\n{"step": 1, "a": {"b": 2}}\n'},
            plots=["j.jsonl"],
        ),
        "two": makes(
            {"loss.csv": "step,loss\n1,3\n", "t/other.csv": "step,loss,f1\n1,4,0.5\n"},
            plots=["loss.csv", {"t/other.csv": UNCACHED}],
        ),
        "bare": makes({"b.csv": "1,0.5\n2,0.25\n"}, plots=[{"b.csv": {"header": False, "x": "0"}}]),
        "top": makes({"d/e.csv": "i,j,y\n3,1,7\n4,1,8\n", "d/f.csv": "y\n1\n"}, outs=["d"]),
        "bom": makes({"bom.csv": "\ufeffstep,loss\r\n1,0.5\r\n"}, plots=[{"bom.csv": UNCACHED}]),
    }
    top = {"run": {"x": {"d/e.csv": "i"}, "y": {"d/e.csv": ["y"]}, "template": "simple"}}
    project = ran(tmp_path, stages, plots=[top, {"d/f.csv": {"x": "missing"}}])
    assert project.record().error == ""
    found = {key: curve(project, row, key) for row in project.rows() for key in row.data.metrics}
    assert repr(found.pop("x/l")) == "[(1, 0.5), (2, nan)]"
    assert found == {
        "csv/n": [(1, 9), (2, 8)],
        "csv/loss": [(1, 0.5), (2, 0.25)],
        "x/step": [(1, 5), (2, 5)],
        "json/a/b": [(0, 1), (1, 2)],
        "two/loss": [(1, 3)],
        "two/other/loss": [(1, 4)],
        "two/other/f1": [(1, 0.5)],
        "bare/1": [(1, 0.5), (2, 0.25)],
        "top/e/y": [(3, 7), (4, 8)],
        "top/e/j": [(3, 1), (4, 1)],
        "bom/loss": [(1, 0.5)],
    }


def test_tables_that_are_no_curves(tmp_path: Path) -> None:
    """A table whose x does not grow, or that DVC plots without a line, is kept as an artifact."""
    files = {
        "pairs.csv": "actual,predicted\n0,0\n1,2\n1,1\n",
        "grows.csv": "actual,predicted\n0,0\n1,2\n2,1\n",
        "dots.csv": "x,y\n1,2\n2,3\n",
        "words.csv": "word,count\nyes,5\nno,7\n",
        "roc.json": '[{"fpr": 0, "tpr": 0}, {"fpr": 1, "tpr": 1}]',
        "image.png": "png",
        "empty.csv": "",
        "broken.jsonl": "{",
    }
    plots: list[Any] = [{name: UNCACHED} for name in files]
    plots[0] = {"pairs.csv": {"x": "actual", "y": "predicted"}}
    plots[1] = {"grows.csv": {"template": "confusion", "x": "actual", "y": "predicted"}}
    plots[2] = {"dots.csv": {"template": "scatter", "x": "x", "y": "y"}}
    project = ran(tmp_path, {"train": makes(files, plots=plots)})
    row, said = recorded(project)
    assert (row.data.metrics, said.error) == ({}, "")
    assert project.artifacts(row) == sorted(files)
    place = mlflow.artifacts.download_artifacts(
        run_id=row.info.run_id, tracking_uri=f"sqlite:///{project.path}/mlflow.db"
    )
    assert {name: Path(place, name).read_text() for name in files} == files


LIVE = {
    "dvclive/metrics.json": '{"train": {"loss": 0.25}, "step": 2, "best": 0.2}',
    "dvclive/plots/metrics/train/loss.tsv": "step\tloss\n0\t0.5\n1\t0.3\n2\t0.25\n",
    "dvclive/plots/metrics/best.tsv": "timestamp\tstep\tbest\n17\t0\t0.1\n18\t1\t0.3\n",
    "dvclive/plots/sklearn/cm.json": '[{"actual": "a", "predicted": "b"}]',
    "dvclive/plots/images/a/0.png": "png",
}


@pytest.mark.parametrize("beside", [False, True], ids=["top", "beside"])
def test_dvclive(tmp_path: Path, beside: bool) -> None:
    """A row has DVCLive's curves, final metrics (at their last steps) and plots."""
    start = "" if beside else "dvclive/"
    shown = {
        "metrics": [f"{start}metrics.json"],
        "plots": [
            {f"{start}plots/metrics": {"x": "step"}},
            {f"{start}plots/sklearn/cm.json": {"template": "confusion", "x": "actual"}},
            f"{start}plots/images",
        ],
    }
    # DVC reads no dvc.yaml in an output, so the outputs are in the folder that has one.
    outs = ["dvclive/metrics.json", "dvclive/plots"] if beside else ["dvclive"]
    files = {"dvclive/dvc.yaml": json.dumps(shown)} if beside else {}
    stages = {"train": makes(LIVE, outs=outs)}
    project = ran(tmp_path, stages, files=files, **({} if beside else shown))
    project.run("rm", "-r", *outs)  # DVC's cache has them
    row, said = recorded(project)
    assert said.error == ""
    assert row.data.metrics == {"train/train/loss": 0.25, "train/step": 2, "train/best": 0.2}
    assert curve(project, row, "train/train/loss") == [(0, 0.5), (1, 0.3), (2, 0.25)]
    assert curve(project, row, "train/best") == [(0, 0.1), (1, 0.2), (1, 0.3)]
    assert {name for name in LIVE if "/sklearn/" in name or "/images/" in name} <= {
        *project.artifacts(row)
    }
    assert columns(project, row)["selectedColumns"] == [
        "metrics.`train/train/loss`",
        "metrics.`train/step`",
        "metrics.`train/best`",
        "tags.`commit`",
    ]


@pytest.mark.rest
def test_long_curve(tmp_path: Path) -> None:
    """A curve with 100,000 points is recorded completely."""
    command = "(echo step,loss; seq 1 100000 | sed s/$/,0.5/) > a.csv"
    project = ran(tmp_path, {"train": {"cmd": command, "plots": ["a.csv"]}})
    row, _ = recorded(project)
    assert len(curve(project, row, "train/loss")) == 100_000
