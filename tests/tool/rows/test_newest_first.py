"""Of many commits, the newest are recorded first."""

from collections.abc import Mapping
from contextlib import chdir
from pathlib import Path
from typing import Any

import pytest

from dvc_mlflow.project.project import Project
from dvc_mlflow.record.recording import Options, Recording
from dvc_mlflow.rows.commits import everything
from support.locked import Locked, locked
from support.pipelines import Stages

pytestmark = pytest.mark.filterwarnings("ignore")  # warnings from DVC's packages


def rows(project: Locked) -> list[Mapping[str, Any]]:
    """Return what would be recorded of all commits, in its order."""
    with chdir(project.path), Project() as opened:
        recording = Recording(opened, project.path, Options(dry_run=True))
        recording.record_commits(everything(project.path))
    assert not recording.notes
    return [{**row.summary(), "time": row.time, "note": row.note} for row in recording.rows]


def pipeline(*, measured: bool = False, plotted: bool = False) -> Stages:
    """Return three stages, of which the first can be measured and the last be plotted."""
    return {
        "make": {
            "cmd": "make",
            "deps": ["raw.txt"],
            "params": ["first"],
            "outs": ["made.txt", *([] if measured else ["made.json"])],
            **({"metrics": ["made.json"]} if measured else {}),
        },
        "fit": {"cmd": "fit", "deps": ["made.txt"], "params": ["second"], "outs": ["fitted.txt"]},
        "try": {
            "cmd": "try",
            "deps": ["fitted.txt"],
            "metrics": ["tried.json"],
            ("plots" if plotted else "outs"): ["tried.csv"],
        },
    }


def written(first: int, second: int) -> dict[str, str]:
    """Return what these stages write with these params."""
    return {
        "made.txt": f"{first}\n",
        "made.json": f'{{"size": {first}}}\n',
        "fitted.txt": f"{first} {second}\n",
        "tried.csv": f"step,loss\n1,{first}\n2,{second}\n",
        "tried.json": f'{{"score": {first + second}}}\n',
    }


def of_eight(path: Path) -> Locked:
    """Return a history of eight results of the later stages."""
    project = locked(path, pipeline(), {"first": 0, "second": 0}, written(0, 0))
    project.commit("0")
    for i in range(1, 8):
        project.again(written(0, i), {"first": 0, "second": i})
        project.commit(f"{i}")
    return project


def test_newest_first(tmp_path: Path) -> None:
    """The rows of the last commit come first, though a stage has one result in all commits."""
    project = of_eight(tmp_path / "project")
    found = [row["params"]["second"] for row in rows(project)]
    assert found == [f"{i}" for i in reversed(range(8))]


def test_outdated(tmp_path: Path) -> None:
    """A stage that did not run again is outdated in the later commit, and in that only."""
    project = locked(tmp_path / "project", pipeline(), {"first": 0, "second": 0}, written(0, 0))
    project.commit("All stages")
    project.again(written(1, 1), {"first": 1, "second": 1}, "make", "fit")
    project.commit("Two of them")
    (row,) = rows(project)
    assert (row["params"], row["metrics"]) == ({"first": "0", "second": "0"}, {"try/score": 0})
