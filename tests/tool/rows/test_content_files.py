"""A row's curves, artifacts and data sets: plots, small outputs, and inputs with their md5."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from dvc_mlflow.pipeline.tags import MD5, tagged
from support.locked import locked, read, row
from support.pipelines import Stages, evaluate
from support.rebuilding import UNCACHED, curve, lines, recorded

pytestmark = pytest.mark.filterwarnings("ignore")  # warnings from MLflow


def draws(*plots: Any, **more: Any) -> dict[str, Any]:
    """Return a stage that declares these plots."""
    return {"cmd": "python run.py", "plots": [*plots], **more}


def test_curves(tmp_path: Path) -> None:
    """A table with one line per step becomes a curve, whatever its format, with or without `x`."""
    stages = {
        "csv": draws("a.csv"),
        "x": draws({"x.tsv": {"x": "t"}}),
        "two": draws("loss.csv", {"t/other.csv": UNCACHED}),
        "bare": draws({"b.csv": {"header": False, "x": "0"}}),
        "top": draws(outs=["d"]),
        "bom": draws({"bom.csv": UNCACHED}),
    }
    files = {
        "a.csv": "n,step,loss\n9,1,0.5\n8,2,0.25",
        "x.tsv": "t\tstep\tl\n1\t5\t0.5\n2\t5\tnan\n",
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


LIVE = {
    "dvclive/metrics.json": '{"train": {"loss": 0.25}, "step": 2, "best": 0.2}',
    "dvclive/plots/metrics/train/loss.tsv": "step\tloss\n0\t0.5\n1\t0.3\n2\t0.25\n",
    "dvclive/plots/metrics/best.tsv": "timestamp\tstep\tbest\n17\t0\t0.1\n18\t1\t0.3\n",
    "dvclive/plots/sklearn/cm.json": '[{"actual": "a", "predicted": "b"}]',
    "dvclive/plots/images/a/0.png": "png",
}


def test_dvclive(tmp_path: Path) -> None:
    """A row has DVCLive's curves, final metrics (at their last steps) and plots."""
    confusion = {"dvclive/plots/sklearn/cm.json": {"template": "confusion", "x": "actual"}}
    plots = [{"dvclive/plots/metrics": {"x": "step"}}, confusion, "dvclive/plots/images"]
    top: dict[str, Any] = {"metrics": ["dvclive/metrics.json"], "plots": plots}
    stages = {"train": {"cmd": "run", "outs": ["dvclive"]}}
    project = locked(tmp_path / "project", stages, files=LIVE, **top)
    project.run("rm", "-r", "dvclive")  # DVC's cache has it
    found = row(project)
    assert found.notes == []
    assert found.metrics == {"train/train/loss": 0.25, "train/step": 2, "train/best": 0.2}
    assert found.curves["train/train/loss"] == [(0, 0.5), (1, 0.3), (2, 0.25)]
    assert found.curves["train/best"] == [(0, 0.1), (1, 0.2), (1, 0.3)]
    assert {name for name in LIVE if "/sklearn/" in name or "/images/" in name} <= {*found.files}
    assert found.measures == ["-train/train/loss", "?train/step", "?train/best"]


@pytest.mark.pipeline
def test_artifacts(tmp_path: Path) -> None:
    """Small outputs and all plots are artifacts, under their own paths, and a curve has its points.

    MLflow shows the final metric where a curve has another value at its last step.
    """
    files = {"d/a b/#ü%.txt": "odd", "d/e": "", "small.bin": "s"}
    files["m.json"] = '{"curve": {"best": 0.2}}'
    files["curve.csv"] = "step,best,loss\n0,0.1,nan\n1,0.3,0.5\n"
    large = dict.fromkeys(["large.png", "large.bin", "f/large.bin"], "x" * 1_000_001)
    stage = {
        "cmd": "run",
        "outs": ["d", "small.bin", "large.bin", "f"],
        "metrics": ["m.json"],
        "plots": ["large.png", "huge.csv", "curve.csv"],
    }
    all_files = {**files, **large, "f/small": "s", "huge.csv": "x" * 51_000_000}
    project = locked(tmp_path / "project", {"train": stage}, files=all_files)
    project.add_store()
    found, said = recorded(project)
    assert found.data.metrics == {"train/curve/best": 0.2, "train/curve/loss": 0.5}
    assert curve(project, found, "train/curve/best") == [(0, 0.1), (1, 0.2), (1, 0.3)]
    assert repr(curve(project, found, "train/curve/loss")) == "[(0, nan), (1, 0.5)]"
    place = Path(project.client.download_artifacts(found.info.run_id, ""))
    kept = {name: (place / name).read_text() for name in project.artifacts(found)}
    assert kept == {**files, "large.png": large["large.png"]}
    assert lines(said) == ["huge.csv has more than 50 MB; it is left out"]


@pytest.mark.pipeline
def test_data_sets(tmp_path: Path) -> None:
    """A data set has the path and the md5 that are in dvc.lock, even if its file changed.

    Params are those that a stage ran with, too; a line says that this cannot be restored.
    """
    stages: Stages = {
        "prepare": {"cmd": "run", "deps": ["code.sh"], "outs": ["d"]},
        "train": {
            "cmd": "run",
            "deps": ["raw.txt", "in.git.txt", "d/x.txt", "d", "code.sh"],
            "outs": ["model.txt"],
            "metrics": [{"m.json": UNCACHED}],
            "meta": {"mlflow": {"data": ["in.git.txt", "not.there.txt"]}},
        },
        "a": evaluate("a", "model.txt", "folder"),
    }
    files = {"in.git.txt": "git\n", "code.sh": "", "folder/raw2.txt": "2\n", "model.txt": "m"}
    files |= {"d/x.txt": "x\n", "d/y.txt": "y\n", "m.json": '{"n": 1}', "a.json": '{"score": 1}'}
    tracked = ["raw.txt", "folder"]
    project = locked(tmp_path / "project", stages, {"a": 1}, files, tracked=tracked)
    project.add_store()
    known = dict(re.findall(r"path: (\S+)\n\s+hash: md5\n\s+md5: (\S+)", project.lock))
    project.write({"raw.txt": "changed\n", "d/x.txt": "changed\n", "in.git.txt": "changed\n"})
    project.set({"a": 2})
    project.run("rm", "model.txt")
    found, said = recorded(project)
    problem = "dvc.yaml: stages.train.meta.mlflow.data: 'not.there.txt' is not a dep of the stage"
    changed = "what train, a ran with: code or inputs have changed since"
    assert lines(said) == [problem, f"not kept for `dvc-mlflow restore`: {changed}"]
    assert found.data.params == {"a": "1"}
    inputs = found.inputs.dataset_inputs
    data_sets = {i.dataset.name: (i.dataset.digest, i.tags[0].value) for i in inputs}
    assert data_sets == {
        "raw.txt": (known["raw.txt"], "train"),
        "in.git.txt": (known["in.git.txt"], "train"),
        "d/x.txt": (known["d/x.txt"], "train"),
        "d": (known["d"], "train"),
        "model.txt": (known["model.txt"], "a"),
        "folder": (known["folder"], "a"),
    }
    outputs = ("d", "model.txt", "m.json", "a.json")
    assert tagged(found.data.tags, MD5) == {name: known[name] for name in outputs}
    assert all(json.loads(i.dataset.source) == {"uri": i.dataset.name} for i in inputs)
