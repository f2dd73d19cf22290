"""What a row has that was made while its stage ran is what `record` makes of its result later."""

from pathlib import Path
from typing import Any

import pytest

from dvc_mlflow.pipeline.tags import CHANGED, KEPT, LIVE
from support.following import following, started, wait_for_rows, wait_for_store
from support.pipelines import Repository, Stages, last, prepare, repository
from support.rebuilding import contents

pytestmark = pytest.mark.pipeline

TRAIN = """
import pathlib, time
def wait(name):
    while not pathlib.Path(name).exists():
        time.sleep(0.05)
first, second = pathlib.Path("columns.txt").read_text().split()
pathlib.Path("curve.csv").write_text(f"step,{first}\\n1,9\\n2,9\\n")
wait("anew")
pathlib.Path("curve.csv").write_text(f"step,{second}\\n1,1\\n2,0.5\\n3,0.25\\n")
wait("go")
"""


def pipeline(root: Path) -> Repository:
    """Return a pipeline in which a training has data that another stage makes."""
    stages: Stages = {
        "prepare": {**prepare(), "params": ["a"], "cmd": "cat raw.txt params.yaml > data.txt"},
        "train": {
            "cmd": "python train.py",
            "deps": ["train.py", "data.txt"],
            "params": ["rate"],
            "plots": [{"curve.csv": {"cache": False, "x": "step"}}],
        },
    }
    files = {"train.py": TRAIN, "columns.txt": "loss loss", "anew": "", "go": ""}
    project = repository(root, stages, files=files)
    project.dvc("repro", "-q")
    project.commit("The first result")
    return project


OWN = {LIVE, KEPT, CHANGED}
"""What only a row has that was begun while its stage ran, and what keeps its code in this clone."""


def rows(project: Repository) -> list[dict[str, Any]]:
    """Return what a store has, but for ids, processes and times."""
    found = contents(project)
    for row in found:
        row.pop("start")
        row["points"] = {key: [p[:2] for p in points] for key, points in row["points"].items()}
        row["tags"] = {key: text for key, text in row["tags"].items() if key not in OWN}
    return sorted(found, key=lambda row: str(row["name"]))


def run_with(project: Repository, params: dict[str, int], columns: str) -> None:
    """Run the pipeline while it is followed; its curve is rewritten, the second of two columns."""
    before, curve = len(project.rows()), f"train/{columns.split(maxsplit=1)[0]}"
    project.write({"columns.txt": columns})
    for name in ("anew", "go"):
        (project.path / name).unlink()
    project.set(params)
    with started(project, "dvc", "repro"):
        wait_for_rows(project, *["FINISHED"] * before, "RUNNING")
        wait_for_store(project, lambda: curve in last(project).data.metrics)
        assert last(project).inputs.dataset_inputs == []
        project.write({"anew": "", "go": ""})
    wait_for_rows(project, *["FINISHED"] * (before + 1))
    project.commit(f"Result {before + 1}")


def test_same_row(tmp_path: Path) -> None:
    """A row that was begun while its stage ran equals the one that is made of its result later."""
    project = pipeline(tmp_path / "project")
    with following(project):
        run_with(project, {"a": 2}, "loss loss")  # not the data that dvc.lock still has
        run_with(project, {"rate": 2}, "loss loss")
        run_with(project, {"rate": 3}, "warm loss")
    assert project.record("--all").status == 0
    live = rows(project)
    project.remove_store()
    project.add_store()
    project.run("dvc-mlflow", "record", "--all")  # this process has the old store open
    assert live == rows(project)
    assert [(len(row["inputs"]), {*row["points"]}) for row in live] == [(1, {"train/loss"})] * 4


def test_changed(tmp_path: Path) -> None:
    """What is written while a stage runs is named in its row, which has what dvc.lock has."""
    project = pipeline(tmp_path / "project")
    (project.path / "go").unlink()
    project.set({"rate": 2})
    with following(project) as follower, started(project, "dvc", "repro"):
        wait_for_rows(project, "FINISHED", "RUNNING")
        wait_for_store(project, lambda: "train/loss" in last(project).data.metrics)
        project.write({"train.py": f"{TRAIN}# later\n", "__pycache__/x.pyc": ""})
        project.set({"rate": 3})
        project.write({"go": ""})
        follower.wait_for("rate, train.py changed while the stage ran")
        follower.wait_for("train is FINISHED")
    row = last(project)
    assert (row.info.status, row.data.params["rate"]) == ("FINISHED", "3")
    assert row.data.tags[CHANGED] == "rate, train.py"
    assert project.record().status == 0
    assert len(project.rows()) == 2
