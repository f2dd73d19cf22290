"""However `dvc` is started, its stages have rows while they run: nothing stands in its way."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.following import SLOW, Follower, following, started, wait_for_rows
from support.pipelines import Repository, repository
from support.waiting import wait

pytestmark = [
    pytest.mark.pipeline,
    pytest.mark.versions,
    pytest.mark.filterwarnings("ignore"),  # warnings from MLflow
]

PYTHON = "from dvc.repo import Repo; Repo().reproduce(); import time; time.sleep(60)"
"""A program that runs the pipeline by DVC's API, and lives on."""


@pytest.fixture
def project(tmp_path: Path) -> Repository:
    """A pipeline in which nothing has run."""
    return repository(tmp_path / "project", SLOW)


@pytest.fixture
def follower(project: Repository) -> Iterator[Follower]:
    """A follower of that pipeline, which has nothing to say but of its rows."""
    with following(project) as found:
        yield found
        assert found.end() == 0
        assert not [line for line in found.lines[1:] if " row '" not in line]


def ran(project: Repository, way: str) -> Any:
    """Start the pipeline in one way."""
    if way == "python":
        return started(project, sys.executable, "-c", PYTHON)
    if way == "folder":
        (project.path / "inner").mkdir()
        return started(project, "dvc", "repro", "-q", "../dvc.yaml", folder="inner")
    if way == "queue":
        project.run("dvc", "exp", "run", "--queue", "-q")
        return started(project, "dvc", "queue", "start")
    words = {"repro": ["repro"], "exp": ["exp", "run"], "temp": ["exp", "run", "--temp"]}
    return started(project, "dvc", *words[way])


@pytest.mark.parametrize("way", ["repro", "exp", "temp", "queue", "python", "folder"])
def test_ways(project: Repository, follower: Follower, way: str) -> None:
    """The row begins with the first stage, has its curve while it runs, and then its result."""
    with ran(project, way) as process:
        (begun,) = wait_for_rows(project, "RUNNING")
        assert begun.data.params == {}  # those of the first stage, which reads none
        assert begun.data.tags["mlflow.source.git.commit"] == project.git("rev-parse", "HEAD")
        growing = wait(lambda: [r for r in project.rows() if "train/loss" in r.data.metrics])
        assert growing[0].info.status == "RUNNING"
        assert growing[0].data.params == {"rate": "1"}
        if way == "exp":  # what an editor asks for again and again
            for words in (["exp", "show", "--json"], ["data", "status", "--json"], ["status"]):
                project.run("dvc", *words, check=False)
        wait(lambda: "a/score" in project.rows()[-1].data.metrics)
        if way == "python":
            process.kill()
    (row,) = wait_for_rows(project, "FINISHED")
    assert row.info.run_id == begun.info.run_id
    assert row.data.metrics == {"train/loss": 0.25, "a/score": 1}
    assert row.data.params == {"rate": "1", "a": "1"}
    experiment = row.data.tags.get("dvc.exp_name", "")
    assert bool(experiment) == (way in ("exp", "temp", "queue"))
    follower.wait_for("a is FINISHED: row ")
    before = project.table()
    assert project.record().status == 0
    assert project.table() == before
