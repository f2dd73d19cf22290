"""Curves show in MLflow while the stage that writes them runs."""

from pathlib import Path
from typing import Any

import pytest

from support.following import following, started, wait_for_rows, wait_for_store
from support.pipelines import Repository, last, repository

pytestmark = pytest.mark.pipeline


def project_of(path: Path, script: str, more: dict[str, Any], **top: Any) -> Repository:
    """Return a pipeline of one stage that runs a script."""
    stage = {"cmd": "python script.py", "deps": ["script.py"], "params": ["rate"], **more}
    return repository(path, {"one": stage}, files={"script.py": script}, **top)


def history(project: Repository, key: str) -> list[tuple[int, float]]:
    """Return all points of a curve of the only row."""
    (row,) = project.rows()
    points = project.client.get_metric_history(row.info.run_id, key)
    return sorted((point.step, point.value) for point in points)


GROWING = """
import json, pathlib, time
folder = pathlib.Path("dvclive/plots/metrics/train")
folder.mkdir(parents=True)
lines = {"csv.csv": "{0},{1}\\n", "jsonl.jsonl": '{{"step": {0}, "jsonl": {1}}}\\n'}
lines[folder / "loss.tsv"] = "{0}\\t{1}\\n"
files = {path: open(path, "w", buffering=1) for path in lines}
files["csv.csv"].write("step,csv\\n")
files[folder / "loss.tsv"].write("step\\tloss\\n")
for i in range(1, 40):
    for path, file in files.items():
        text = lines[path].format(i, i / 8)
        file.write(text[:4]); file.flush(); time.sleep(0.01); file.write(text[4:]); file.flush()
    text = json.dumps({"train": {"loss": i / 8}, "step": i})
    pathlib.Path("dvclive/metrics.json").write_text(text)
    while i == 20 and not pathlib.Path("go").exists():
        time.sleep(0.05)
"""


def test_live_curves(tmp_path: Path) -> None:
    """A growing file shows in MLflow before the stage ends, each line once, when it is complete.

    So do those of DVCLive, whose summary is at their last step.
    """
    plots = [{path: {"cache": False, "x": "step"}} for path in ("csv.csv", "jsonl.jsonl")]
    top = {"metrics": ["dvclive/metrics.json"], "plots": [{"dvclive/plots/metrics": {"x": "step"}}]}
    made = {"plots": plots, "outs": ["dvclive"]}
    project = project_of(tmp_path / "project", GROWING, made, **top)
    keys = ("one/csv", "one/jsonl", "one/train/loss")
    with following(project), started(project, "dvc", "repro") as dvc:
        wait_for_rows(project, "RUNNING")
        half = dict.fromkeys(keys, 20 / 8)
        wait_for_store(project, lambda: last(project).data.metrics == half)
        assert last(project).info.status == "RUNNING"
        project.write({"go": ""})
        assert dvc.wait(180) == 0
        wait_for_rows(project, "FINISHED")
    points = [(i, i / 8) for i in range(1, 40)]
    assert {key: history(project, key) for key in keys} == dict.fromkeys(keys, points)
    assert last(project).data.metrics == {**dict.fromkeys(keys, 39 / 8), "one/step": 39}


LOGS = """
import mlflow, pathlib, time
mlflow.log_metric("mine", 1)
pathlib.Path("c.csv").write_text("step,loss\\n1,9\\n2,9\\n")
while not pathlib.Path("go").exists():
    time.sleep(0.05)
pathlib.Path("c.csv").write_text("step,loss\\n1,1\\n")
"""


@pytest.mark.rest
def test_rewritten_curve_beside_own_metrics(tmp_path: Path) -> None:
    """If a script that has logged to its row rewrites a curve, a line says that both are there."""
    plots = [{"c.csv": {"cache": False, "x": "step"}}]
    project = project_of(tmp_path / "project", LOGS, {"plots": plots})
    with following(project) as follower:
        with started(project, "dvc-mlflow", "run", "dvc", "repro"):
            wait_for_rows(project, "RUNNING")
            # The script's own run becomes the row, which may have begun without it.
            both = {"one/loss", "mine"}
            wait_for_store(project, lambda: both <= last(project).data.metrics.keys())
            project.write({"go": ""})
        follower.wait_for("a curve was written anew; the row also has points of the")
        wait_for_rows(project, "FINISHED")
    assert history(project, "one/loss") == [(1, 1), (1, 9), (2, 9)]
