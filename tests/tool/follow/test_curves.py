"""Curves show in MLflow while the stage that writes them runs."""

from pathlib import Path
from typing import Any

import pytest

from support.following import followed, following, started, wait_for_rows
from support.pipelines import Repository, repository
from support.waiting import wait

pytestmark = [
    pytest.mark.pipeline,
    pytest.mark.versions,
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
    project = project_of(tmp_path / "project", script, {"plots": [plot]})
    at = project.path / "at"
    with following(project), started(project, "dvc", "repro") as dvc:
        wait(lambda: at.exists() and at.read_text() == "50", 60)
        wait(lambda: [row for row in project.rows() if row.data.metrics == {"one/loss": 50 / 8}])
        assert project.rows()[0].info.status == "RUNNING"
        (project.path / "go").touch()
        assert dvc.wait(60) == 0
        wait_for_rows(project, "FINISHED")
    assert history(project) == [(i, i / 8) for i in range(1, 100)]


ANEW = """
import pathlib, time
pathlib.Path("c.csv").write_text("step,loss\\n1,9\\n2,9\\n")
time.sleep(4)
pathlib.Path("c.csv").write_text("step,loss\\n1,1\\n")
"""


@pytest.mark.rest
def test_curve_that_is_written_anew(tmp_path: Path) -> None:
    """If a script rewrites its curve, the row has only the final one."""
    plots = [{"c.csv": {"cache": False, "x": "step"}}]
    project = project_of(tmp_path / "project", ANEW, {"plots": plots})
    with following(project):
        followed(project, "repro", "-q")
    assert history(project) == [(1, 1)]
    assert project.record().out.startswith("nothing to do")


@pytest.mark.rest
def test_anew_in_a_run_of_the_script(tmp_path: Path) -> None:
    """If the script has logged to the row, too, a line says that the earlier points are there."""
    script = f'import mlflow\nmlflow.log_metric("mine", 1)\n{ANEW}'
    plots = [{"c.csv": {"cache": False, "x": "step"}}]
    project = project_of(tmp_path / "project", script, {"plots": plots})
    with following(project) as follower:
        project.run("dvc-mlflow", "run", "dvc", "repro", "-q")
        assert project.record().status == 0
        follower.wait_for("a curve was written anew; the row also has points of the")
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
        text = json.dumps({"train": {"loss": 8 - i}, "step": i})
        pathlib.Path("dvclive/metrics.json").write_text(text)
        time.sleep(0.7)
"""


def test_dvclive(tmp_path: Path) -> None:
    """What DVCLive writes shows as curves, no point twice; its summary is at their last step."""
    top = {"metrics": ["dvclive/metrics.json"], "plots": [{"dvclive/plots/metrics": {"x": "step"}}]}
    project = project_of(tmp_path / "project", DVCLIVE, {"outs": ["dvclive"]}, **top)
    with following(project):
        followed(project, "repro", "-q")
    (row,) = project.rows()
    assert history(project, "one/train/loss") == [(0, 8), (1, 7), (2, 6), (3, 5)]
    assert row.data.metrics == {"one/train/loss": 5, "one/step": 3}
