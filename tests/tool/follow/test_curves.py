"""Curves show in MLflow while the stage that writes them runs."""

from pathlib import Path
from typing import Any

import pytest

from support.following import (
    following,
    started,
    statuses,
    wait_for_rows,
    wait_for_store,
)
from support.pipelines import Repository, repository
from support.waiting import wait

pytestmark = [
    pytest.mark.pipeline,
    pytest.mark.filterwarnings("ignore"),  # warnings from MLflow
]


def project_of(path: Path, script: str, more: dict[str, Any], **top: Any) -> Repository:
    """Return a pipeline of one stage that runs a script."""
    stage = {"cmd": "python script.py", "deps": ["script.py"], "params": ["rate"], **more}
    return repository(path, {"one": stage}, files={"script.py": script}, **top)


def history(project: Repository, key: str = "one/loss") -> list[tuple[int, float]]:
    """Return all points of a curve of the only row."""
    (row,) = project.rows()
    points = project.client.get_metric_history(row.info.run_id, key)
    return sorted((point.step, point.value) for point in points)


GROWING = """
import time, pathlib
lines = {"csv": "{0},{1}\\n", "tsv": "{0}\\t{1}\\n", "jsonl": '{{"step": {0}, "jsonl": {1}}}\\n'}
heads = {"csv": "step,csv\\n", "tsv": "step\\ttsv\\n", "jsonl": ""}
files = {kind: open(f"{kind}.{kind}", "w", buffering=1) for kind in lines}
for kind, file in files.items():
    file.write(heads[kind])
for i in range(1, 100):
    for kind, file in files.items():
        text = lines[kind].format(i, i / 8)
        file.write(text[:4]); file.flush(); time.sleep(0.01); file.write(text[4:]); file.flush()
    while i == 50 and not pathlib.Path("go").exists():
        time.sleep(0.05)
"""
KINDS = ("csv", "tsv", "jsonl")


def test_live_curves(tmp_path: Path) -> None:
    """A growing file shows in MLflow before the stage ends, each line once, when it is complete."""
    plots = [{f"{kind}.{kind}": {"cache": False, "x": "step"}} for kind in KINDS]
    project = project_of(tmp_path / "project", GROWING, {"plots": plots})
    half = {f"one/{kind}": 50 / 8 for kind in KINDS}
    with following(project), started(project, "dvc", "repro") as dvc:
        wait_for_rows(project, "RUNNING")
        wait_for_store(project, lambda: project.rows()[0].data.metrics == half)
        assert project.rows()[0].info.status == "RUNNING"
        (project.path / "go").touch()
        assert dvc.wait(60) == 0
        wait_for_rows(project, "FINISHED")
    points = {kind: history(project, f"one/{kind}") for kind in KINDS}
    assert points == {kind: [(i, i / 8) for i in range(1, 100)] for kind in KINDS}


ANEW = """
import pathlib, time
pathlib.Path("c.csv").write_text("step,loss\\n1,9\\n2,9\\n")
while not pathlib.Path("go").exists():
    time.sleep(0.05)
pathlib.Path("c.csv").write_text("step,loss\\n1,1\\n")
"""


@pytest.mark.rest
@pytest.mark.parametrize("is_own", [True, False])
def test_curve_that_is_written_anew(tmp_path: Path, is_own: bool) -> None:
    """If a script rewrites its curve, the row has only the final one.

    If the script has logged to the row, too, a line says that the earlier points are there.
    """
    logs = "" if is_own else 'import mlflow\nmlflow.log_metric("mine", 1)\n'
    plots = [{"c.csv": {"cache": False, "x": "step"}}]
    project = project_of(tmp_path / "project", f"{logs}{ANEW}", {"plots": plots})
    command = ["dvc", "repro"] if is_own else ["dvc-mlflow", "run", "dvc", "repro"]
    with following(project) as follower:
        with started(project, *command):
            wait(lambda: statuses(project) == ["RUNNING"], 60)
            # The script's own run becomes the row, which may have begun without it.
            logged = {"one/loss"} if is_own else {"one/loss", "mine"}
            wait_for_store(project, lambda: logged <= project.rows()[0].data.metrics.keys())
            project.write({"go": ""})
        assert project.record().status == 0
        if not is_own:
            follower.wait_for("a curve was written anew; the row also has points of the")
    if is_own:
        assert history(project) == [(1, 1)]
        assert project.record().out.startswith("nothing to do")
    else:
        assert project.rows()[0].data.metrics["mine"] == 1


DVCLIVE = """
import json, pathlib, time
folder = pathlib.Path("dvclive/plots/metrics/train")
folder.mkdir(parents=True)
with open(folder / "loss.tsv", "w", buffering=1) as file:
    file.write("step\\tloss\\n")
    for i in range(4):
        file.write(f"{i}\\t{8 - i}\\n")
        text = json.dumps({"train": {"loss": 8 - i}, "step": i})
        pathlib.Path("dvclive/metrics.json").write_text(text)
        while i == 1 and not pathlib.Path("go").exists():
            time.sleep(0.05)
"""


def test_dvclive(tmp_path: Path) -> None:
    """What DVCLive writes shows as curves, no point twice; its summary is at their last step."""
    top = {"metrics": ["dvclive/metrics.json"], "plots": [{"dvclive/plots/metrics": {"x": "step"}}]}
    project = project_of(tmp_path / "project", DVCLIVE, {"outs": ["dvclive"]}, **top)
    key, points = "one/train/loss", [(0, 8), (1, 7), (2, 6), (3, 5)]
    with following(project), started(project, "dvc", "repro") as dvc:
        wait_for_rows(project, "RUNNING")
        wait_for_store(project, lambda: history(project, key) == points[:2])
        project.write({"go": ""})
        assert dvc.wait(60) == 0
        wait_for_rows(project, "FINISHED")
    (row,) = project.rows()
    assert history(project, key) == points
    assert row.data.metrics == {"one/train/loss": 5, "one/step": 3}
