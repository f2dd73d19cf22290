"""Many commits are recorded in rounds, the newest first, to the same rows as all at once."""

import json
import random
from collections.abc import Mapping
from contextlib import chdir
from pathlib import Path
from typing import Any

import pytest

from dvc_mlflow.follow.recording import Options, Recording
from dvc_mlflow.pipeline.row_stages import recorded
from dvc_mlflow.project import Project, ProjectAt
from dvc_mlflow.rows import history
from dvc_mlflow.rows.commits import everything
from support.locked import Locked, locked
from support.pipelines import Stages

pytestmark = pytest.mark.filterwarnings("ignore")  # warnings from DVC's packages


def rows(project: Locked, monkeypatch: pytest.MonkeyPatch, first: int) -> list[Mapping[str, Any]]:
    """Return what would be recorded of all commits, in its order, with `first` in a round."""
    monkeypatch.setattr(history, "_FIRST", first)
    with chdir(project.path), Project() as opened:
        recording = Recording(opened, project.path, Options(dry_run=True), reads_all=True)
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


def test_newest_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rows of the last commit come first, though a stage has one result in all commits."""
    project = of_eight(tmp_path / "project")
    found = [row["params"]["second"] for row in rows(project, monkeypatch, 1)]
    assert found == [f"{i}" for i in reversed(range(8))]


def test_first_round(tmp_path: Path) -> None:
    """Two of many states are read before the first row: the last, and the first with its data."""
    project = of_eight(tmp_path / "project")
    said: list[int] = []
    with chdir(project.path), Project() as opened, ProjectAt(opened) as past:
        rounds = history.PastResults(opened, past, said.append).rounds(
            everything(project.path), recorded
        )
        first = next(rounds)
    assert said == [8, 0, 0]
    assert [each.origin.subject for each in first.states] == ["0", "7"]


@pytest.mark.parametrize("first", [1, 1000])
def test_outdated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: int) -> None:
    """A stage that did not run again is outdated in the later commit, and in that only."""
    project = locked(tmp_path / "project", pipeline(), {"first": 0, "second": 0}, written(0, 0))
    project.commit("All stages")
    project.again(written(1, 1), {"first": 1, "second": 1}, "make", "fit")
    project.commit("Two of them")
    (row,) = rows(project, monkeypatch, first)
    assert (row["params"], row["metrics"]) == ({"first": "0", "second": "0"}, {"try/score": 0})


@pytest.mark.parametrize("seed", range(6))
def test_same_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    """What commits declare, when results were made and what is data do not depend on rounds."""
    chance = random.Random(seed)  # noqa: S311
    project = locked(tmp_path / "project", pipeline(), {"first": 0, "second": 0}, written(0, 0))
    project.commit("0")
    for i in range(1, 12):
        change = chance.choice(["declared", "data", "branch", *["run"] * 5])
        if change == "declared":
            measured, plotted = chance.random() < 0.5, chance.random() < 0.5
            now = {"stages": pipeline(measured=measured, plotted=plotted)}
            project.write({"dvc.yaml": json.dumps(now)})
        elif change == "data":
            project.track("raw.txt")
        elif change == "branch":
            back = chance.randrange(1, int(project.git("rev-list", "--count", "HEAD")) + 1) - 1
            project.git("checkout", "-q", "-b", f"b{i}", f"HEAD~{back}")
        first, second = chance.randrange(2), chance.randrange(3)
        if change != "declared":
            project.again(written(first, second), {"first": first, "second": second})
        project.git("add", "-A")
        project.git("commit", "-q", "--allow-empty", "-m", f"{i}")
    found = [rows(project, monkeypatch, size) for size in (1, 1000)]
    one_by_one, at_once = (sorted(each, key=lambda row: f"{row['results']}") for each in found)
    assert one_by_one == at_once
    assert len(at_once) > 1
