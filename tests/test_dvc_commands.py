"""DVC's own commands work on this pipeline: metrics, plots, experiments and changes of params."""

import json
import shutil
import sys
from pathlib import Path

import pytest
from dvc.utils.hydra import apply_overrides

from support.clone import ROOT, TINY, Clone

pytestmark = pytest.mark.pipeline


def test_metrics(reproduced: Clone, copy: Clone) -> None:
    """`dvc metrics show` prints the result, and `dvc metrics diff` how it has changed."""
    shown = json.loads(reproduced.dvc("metrics", "show", "--json").stdout)
    metrics = shown[""]["data"]["data/metrics.json"]["data"]
    assert set(metrics) == {"loss", "accuracy", "correctly_classified", "n_samples"}
    assert metrics["n_samples"] == TINY["test_data.n_samples"]
    assert metrics["accuracy"] == metrics["correctly_classified"] / metrics["n_samples"]
    assert "correctly_classified" in reproduced.dvc("metrics", "show").stdout
    metrics["correctly_classified"] += 1
    (copy.path / "data/metrics.json").write_text(json.dumps(metrics))
    diff = json.loads(copy.dvc("metrics", "diff", "--json").stdout)
    assert diff["data/metrics.json"]["correctly_classified"]["diff"] == 1


def test_plots(copy: Clone) -> None:
    """`dvc plots show` draws both losses, both accuracies and the confusion matrix."""
    copy.dvc("plots", "show")
    page = (copy.path / "dvc_plots/index.html").read_text()
    for series in ("loss", "val_loss", "accuracy", "val_accuracy", "predicted", "actual"):
        assert f'"{series}"' in page
    assert "Confusion matrix" in page
    rows = (copy.path / "data/training.csv").read_text().splitlines()
    assert rows[0] == "epoch,n_steps,loss,accuracy,val_loss,val_accuracy"
    assert len(rows) == 1 + TINY["train.epochs"]
    for value in rows[-1].split(",")[2:]:
        assert value in page
    specs = json.loads(copy.dvc("plots", "show", "--json").stdout)["data"]
    assert {"loss", "accuracy", "data/predictions.csv"} <= set(specs)


def test_params_that_no_stage_reads(reproduced: Clone, tmp_path: Path) -> None:
    """`make repro` reports what DVC does not see: `1` in place of `true`, and unread sections."""
    clone = reproduced.copy(tmp_path / "clone")
    params = clone.path / "params.yaml"
    good = params.read_text()
    for text, line in [
        (good.replace("marked: true", "marked: 1"), "data.marked: must be true or false"),
        (f"{good}\nevaluat: {{}}\n", "evaluat: must not be given: there is no such key"),
    ]:
        params.write_text(text)
        assert clone.repro() == []
        check = [sys.executable, "-m", "vanilla_lstm.task.params"]
        done = clone.run(*check, check=False, PYTHONPATH="stages")
        assert done.returncode == 1
        assert done.stderr.startswith(f"params.yaml: {line}")
        assert done.stderr.count("\n") == 1


def test_one_changed_value_is_one_changed_line(reproduced: Clone, tmp_path: Path) -> None:
    """Each committed params.yaml is formatted as DVC writes it: a new value changes one line."""
    clone = reproduced.copy(tmp_path / "clone")
    for path in [Path("params.yaml"), *sorted(ROOT.glob("claims/*/params.yaml"))]:
        shutil.copy(ROOT / path, clone.path / "params.yaml")
        clone.commit("As committed, if the user has changed nothing")
        apply_overrides(str(clone.path / "params.yaml"), ["train.seed=9", "train.clipnorm=1"])
        changed = clone.git("diff", "--numstat", "params.yaml").split()
        assert changed[:2] == ["2", "2"], path
