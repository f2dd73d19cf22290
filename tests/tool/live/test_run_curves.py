"""Curves show in MLflow while the stage that writes them runs."""

from pathlib import Path

import pytest

from support.live_runs import one, reproducing, wait
from support.pipelines import repository

pytestmark = [
    pytest.mark.pipeline,
    pytest.mark.versions,
    pytest.mark.filterwarnings("ignore"),  # warnings from MLflow
]


@pytest.mark.parametrize(
    "kind", ["csv", *(pytest.param(kind, marks=pytest.mark.rest) for kind in ("tsv", "jsonl"))]
)
def test_live_curves(tmp_path: Path, kind: str) -> None:
    """A growing file shows in MLflow before the stage ends, each line once, when it is complete."""
    line = {"csv": "{0},{1}\\n", "tsv": "{0}\\t{1}\\n", "jsonl": '{{"step": {0}, "loss": {1}}}\\n'}
    head = {"csv": "step,loss\\n", "tsv": "step\\tloss\\n", "jsonl": ""}
    script = f"""
import time, pathlib
with open("curve.{kind}", "w", buffering=1) as file:
    file.write({head[kind]!r}.encode().decode("unicode_escape"))
    for i in range(1, 100):
        text = {line[kind]!r}.encode().decode("unicode_escape").format(i, i / 8)
        file.write(text[:4]); file.flush(); time.sleep(0.01); file.write(text[4:]); file.flush()
        pathlib.Path("at").write_text(str(i))
        while i == 50 and not pathlib.Path("go").exists():
            time.sleep(0.05)
        time.sleep(0.02)
"""
    plot = {f"curve.{kind}": {"cache": False, "x": "step"}}
    project = repository(
        tmp_path / "project",
        one("python script.py", deps=["script.py"], plots=[plot]),
        files={"script.py": script},
    )
    at = project.path / "at"
    with reproducing(project) as dvc:
        wait(lambda: at.exists() and at.read_text() == "50", 60)
        wait(lambda: [row for row in project.rows() if row.data.metrics == {"one/loss": 50 / 8}])
        assert project.rows()[0].info.status == "RUNNING"
        (project.path / "go").touch()
        assert dvc.wait(60) == 0
    (row,) = project.rows()
    history = project.client.get_metric_history(row.info.run_id, "one/loss")
    assert [(m.step, m.value) for m in history] == [(i, i / 8) for i in range(1, 100)]


@pytest.mark.rest
def test_curve_that_is_written_anew(tmp_path: Path) -> None:
    """If a script rewrites its curve, the row has only the final one."""
    script = (
        "printf 'step,loss\\n1,9\\n2,9\\n' > c.csv; sleep 6; printf 'step,loss\\n1,1\\n' > c.csv"
    )
    project = repository(
        tmp_path / "project",
        one("sh script", deps=["script"], plots=[{"c.csv": {"cache": False, "x": "step"}}]),
        files={"script": script},
    )
    project.dvc("repro", "-q")
    (row,) = project.rows()
    history = project.client.get_metric_history(row.info.run_id, "one/loss")
    assert [(m.step, m.value) for m in history] == [(1, 1)]
    assert project.record().out.startswith("nothing to do")


@pytest.mark.rest
def test_anew_in_a_run_of_the_script(tmp_path: Path) -> None:
    """If the script has logged to the row, too, a line says that the earlier points are there."""
    script = """
import mlflow, pathlib, time
with mlflow.start_run():
    mlflow.log_metric("mine", 1)
    pathlib.Path("c.csv").write_text("step,loss\\n1,9\\n2,9\\n")
    time.sleep(6)
    pathlib.Path("c.csv").write_text("step,loss\\n1,1\\n")
"""
    plot = {"c.csv": {"cache": False, "x": "step"}}
    meta = {"meta": {"mlflow": {"open": "first"}}}
    stages = one("python script.py", deps=["script.py"], plots=[plot], **meta)
    project = repository(tmp_path / "project", stages, files={"script.py": script})
    done = project.dvc("repro")
    assert "dvc-mlflow: a curve was written anew; the row also has points of the" in done.stderr
    (row,) = project.rows()
    assert row.data.metrics["mine"] == 1


DVCLIVE = """
import json, pathlib, time
folder = pathlib.Path("dvclive/plots/metrics/train")
folder.mkdir(parents=True)
with open(folder / "loss.tsv", "w", buffering=1) as file:
    file.write("step\\tloss\\n")
    for i in range(4):
        file.write(f"{i}\\t{8 - i}\\n")
pathlib.Path("dvclive/metrics.json").write_text(json.dumps({"train": {"loss": 5}, "step": 3}))
"""


def test_dvclive(tmp_path: Path) -> None:
    """What DVCLive writes shows as curves; its summary is at their last step."""
    stages = one("python script.py", deps=["script.py"], outs=["dvclive"])
    project = repository(
        tmp_path / "project",
        stages,
        files={"script.py": DVCLIVE},
        metrics=["dvclive/metrics.json"],
        plots=[{"dvclive/plots/metrics": {"x": "step"}}],
    )
    project.dvc("repro", "-q")
    (row,) = project.rows()
    history = project.client.get_metric_history(row.info.run_id, "one/train/loss")
    assert sorted({(m.step, m.value) for m in history}) == [(0, 8), (1, 7), (2, 6), (3, 5)]
    assert row.data.metrics == {"one/train/loss": 5, "one/step": 3}
