"""Plots with one line per step are curves in MLflow; other plots are artifacts."""

import json
from pathlib import Path
from typing import Any

import mlflow
import pytest

from support.locked import locked, read, row
from support.pipelines import Stages, makes
from support.row_content import UNCACHED, curve, ran, recorded

pytestmark = pytest.mark.filterwarnings("ignore")  # warnings from MLflow


def draws(*plots: Any, **more: Any) -> dict[str, Any]:
    """Return a stage that declares these plots."""
    return {"cmd": "python run.py", "plots": [*plots], **more}


def test_curves(tmp_path: Path) -> None:
    """A table with one line per step becomes a curve, whatever its format, with or without `x`."""
    stages: Stages = {
        "csv": draws("a.csv"),
        "x": draws({"x.tsv": {"x": "t"}}),
        "json": draws("j.jsonl"),
        "two": draws("loss.csv", {"t/other.csv": UNCACHED}),
        "bare": draws({"b.csv": {"header": False, "x": "0"}}),
        "top": draws(outs=["d"]),
        "bom": draws({"bom.csv": UNCACHED}),
    }
    files = {
        "a.csv": "n,step,loss\n9,1,0.5\n8,2,0.25",
        "x.tsv": "t\tstep\tl\n1\t5\t0.5\n2\t5\tnan\n",
        "j.jsonl": '{"step": 0, "a": {"b": 1}}\n{"step": 1, "a": {"b": 2}}\n',
        "loss.csv": "step,loss\n1,3\n",
        "t/other.csv": "step,loss,f1\n1,4,0.5\n",
        "b.csv": "1,0.5\n2,0.25\n",
        "d/e.csv": "i,j,y\n3,1,7\n4,1,8\n",
        "d/f.csv": "y\n1\n",
        "bom.csv": "\ufeffstep,loss\r\n1,0.5\r\n",
    }
    top = {"run": {"x": {"d/e.csv": "i"}, "y": {"d/e.csv": ["y"]}, "template": "simple"}}
    plots = [top, {"d/f.csv": {"x": "missing"}}]
    every = read(locked(tmp_path / "project", stages, files=files, plots=plots))
    assert (every.problems, [each.notes for each in every.rows]) == ([], [[]] * len(every.rows))
    found = {key: points for each in every.rows for key, points in each.curves.items()}
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
    found = row(locked(tmp_path / "project", {"train": draws(*plots)}, files=files))
    assert (found.metrics, found.notes) == ({}, [])
    assert found.files == {name: text.encode() for name, text in files.items()}


@pytest.mark.pipeline
def test_curves_in_a_store(tmp_path: Path) -> None:
    """MLflow has the points of a curve, and other tables as files."""
    files = {"a.csv": "step,loss\n1,0.5\n2,nan\n", "words.csv": "word,count\nyes,5\nno,7\n"}
    project = ran(tmp_path, {"train": makes(files, plots=[*files])})
    found, said = recorded(project)
    assert said.error == ""
    assert repr(curve(project, found, "train/a/loss")) == "[(1, 0.5), (2, nan)]"
    assert {*found.data.metrics} == {"train/a/loss"}
    assert project.artifacts(found) == sorted(files)
    place = mlflow.artifacts.download_artifacts(
        run_id=found.info.run_id, tracking_uri=f"sqlite:///{project.path}/mlflow.db"
    )
    assert {name: Path(place, name).read_text() for name in files} == files


def test_folds(tmp_path: Path) -> None:
    """Several folders of plots, as of a cross-validation, keep all their curves."""
    folds = [f"fold_{n}" for n in range(3)]
    files = {f"{fold}/plots/loss.tsv": f"step\tloss\n0\t{fold[-1]}\n" for fold in folds}
    plots = [{f"{fold}/plots": {"cache": False, "x": "step"}} for fold in folds]
    project = locked(tmp_path / "project", {"train": draws(*plots)}, files=files)
    found = row(project)
    assert found.notes == []
    assert found.curves == {f"train/{fold}/plots/loss": [(0, int(fold[-1]))] for fold in folds}


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
    files = {**LIVE, **({"dvclive/dvc.yaml": json.dumps(shown)} if beside else {})}
    stages: Stages = {"train": {"cmd": "python train.py", "outs": outs}}
    top: dict[str, Any] = {} if beside else shown
    project = locked(tmp_path / "project", stages, files=files, **top)
    project.commit()
    project.run("rm", "-r", *outs)  # DVC's cache has them
    found = row(project)
    assert found.notes == []
    assert found.metrics == {"train/train/loss": 0.25, "train/step": 2, "train/best": 0.2}
    assert found.curves["train/train/loss"] == [(0, 0.5), (1, 0.3), (2, 0.25)]
    assert found.curves["train/best"] == [(0, 0.1), (1, 0.2), (1, 0.3)]
    assert {name for name in LIVE if "/sklearn/" in name or "/images/" in name} <= {*found.files}
    assert found.measures == ["-train/train/loss", "?train/step", "?train/best"]


def test_final_metrics_in_a_store(tmp_path: Path) -> None:
    """MLflow shows the final metric where a curve has another value at its last step."""
    files = {"m.json": '{"best": 0.2, "loss": 0.5}'}
    files["curve.csv"] = "step,best,loss\n0,0.1,1\n1,0.3,0.5\n"
    stage = draws("curve.csv", metrics=["m.json"])
    project = locked(tmp_path / "project", {"train": stage}, files=files)
    project.add_store()
    found, _ = recorded(project)
    assert found.data.metrics == row(project).metrics == {"train/best": 0.2, "train/loss": 0.5}
    assert curve(project, found, "train/best") == [(0, 0.1), (1, 0.2), (1, 0.3)]
    assert curve(project, found, "train/loss") == [(0, 1), (1, 0.5)]


@pytest.mark.rest
def test_long_curve(tmp_path: Path) -> None:
    """A curve with 100,000 points is recorded completely."""
    files = {"a.csv": "step,loss\n" + "".join(f"{i},0.5\n" for i in range(1, 100_001))}
    project = locked(tmp_path / "project", {"train": draws("a.csv")}, files=files)
    project.add_store()
    found, _ = recorded(project)
    assert len(curve(project, found, "train/loss")) == 100_000
