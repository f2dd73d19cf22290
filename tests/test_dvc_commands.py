"""DVC's own commands on this pipeline: which stages a change runs, metrics, plots and params."""

import json
from pathlib import Path

import pytest
from dvc.utils.hydra import apply_overrides
from ruamel.yaml import YAML

from support.clone import ROOT, TINY, Clone
from support.pipelines import Repository

pytestmark = pytest.mark.pipeline


def test_what_runs_nothing(copy: Clone) -> None:
    """Formatting of params.yaml runs nothing, nor do 4.0 for 4 and what editors leave."""
    file = copy.path / "params.yaml"
    copy.set({"train.epochs": 3.0, "data.n_steps": 10.0, "model.units": 4.0})
    sections = YAML(typ="safe").load(file)
    with file.open("w") as target:
        target.write("# another comment\n\n")
        YAML().dump({name: dict(reversed(s.items())) for name, s in sections.items()}, target)
    for name in ["__pycache__/x.pyc", "sequences.py~", ".x.py.swp", ".DS_Store"]:
        stray = copy.path / "stages/vanilla_lstm/task" / name
        stray.parent.mkdir(exist_ok=True)
        stray.write_text("stray")
    assert "up to date" in Repository(copy.path).dvc("repro").stdout


@pytest.mark.rest
def test_what_runs(copy: Clone) -> None:
    """A changed param runs its stages; setting it back restores all results without a run."""
    lock = copy.lock
    copy.set({"test_data.seed": 1})
    assert copy.repro() == ["generate-test-data", "evaluate"]
    copy.git("checkout", "-q", "params.yaml")
    assert copy.repro() == []  # all from DVC's run cache
    assert copy.lock == lock
    assert copy.git("status", "--porcelain") == ""


def test_metrics_and_plots(copy: Clone) -> None:
    """`dvc metrics show` prints the result; `dvc plots show` draws curves and confusion matrix."""
    shown = json.loads(copy.dvc("metrics", "show", "--json").stdout)
    metrics = shown[""]["data"]["data/metrics.json"]["data"]
    assert set(metrics) == {"loss", "accuracy", "correctly_classified", "n_samples"}
    assert metrics["n_samples"] == TINY["test_data.n_samples"]
    assert metrics["accuracy"] == metrics["correctly_classified"] / metrics["n_samples"]
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


def test_one_changed_value_is_one_changed_line(tmp_path: Path) -> None:
    """Each committed params.yaml is formatted as DVC writes it: a new value changes one line."""
    for path in [ROOT / "params.yaml", *sorted(ROOT.glob("claims/*/params.yaml"))]:
        before, file = path.read_text(), tmp_path / "params.yaml"
        file.write_text(before)
        apply_overrides(str(file), ["train.seed=9", "train.clipnorm=1"])
        pairs = zip(before.splitlines(), file.read_text().splitlines(), strict=True)
        assert sum(old != new for old, new in pairs) == 2, path
