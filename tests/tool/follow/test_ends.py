"""How a stage has ended, as dvc.lock says: its row is FINISHED, FAILED or KILLED, once."""

import os
import signal
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from dvc_mlflow.pipeline.tags import NOTE
from support.following import (
    following,
    held_by,
    run_dvc,
    started,
    statuses,
    wait_for_rows,
    wait_for_store,
)
from support.pipelines import Repository, evaluate, last, prepare, repository, results, train
from support.processes import wait

pytestmark = pytest.mark.pipeline

GATE = held_by(Path("go"))
LIVES_ON = """
import time
from dvc.repo import Repo
try: Repo().reproduce("one")
except Exception: time.sleep(60)
"""
"""A program that runs a stage that fails by DVC's API, and lives on."""
IN_TURN = """
import os, time
from dvc.repo import Repo
Repo().reproduce("train")
while not os.path.exists("next"): time.sleep(0.05)
Repo().reproduce("a")
time.sleep(60)
"""
"""A program that runs two stages, the second when a file is there, and lives on."""


def end_without_result(project: Repository, way: str) -> None:
    """Let the stage `one` fail, or kill its `dvc` or both; wait until its row says so."""
    (project.path / "go").unlink(missing_ok=True)
    command = ["dvc", "repro", "one"] if way != "python" else [sys.executable, "-c", LIVES_ON]
    before = statuses(project)
    with started(project, *command) as process:
        wait_for_rows(project, *before, "RUNNING")
        if way == "group":
            os.killpg(process.pid, signal.SIGINT)
        elif way == "dvc":
            process.kill()
        else:
            project.write({"go": ""})
        wait(lambda: "RUNNING" not in statuses(project))
        assert process.poll() is None or way != "python"
        if way in ("dvc", "python"):
            os.killpg(process.pid, signal.SIGKILL)


def test_without_result(tmp_path: Path) -> None:
    """A stage that fails, for any reason, has a FAILED row; a killed `dvc` leaves a KILLED one.

    With `repro -k`, one stage fails and another goes on: each has the row that is its own.
    """
    one = {
        "cmd": f"{GATE}; exit 1",
        "deps": ["raw.txt"],
        "metrics": [{"m.json": {"cache": False}}],
    }
    project = repository(tmp_path / "project", {"one": one, "b": evaluate("b", "raw.txt")})
    ends = {"fails": "FAILED", "group": "FAILED", "dvc": "KILLED", "python": "FAILED"}
    with following(project) as follower:
        for way in ends:
            end_without_result(project, way)
        assert dict(zip(ends, statuses(project), strict=True)) == ends
        assert "stage one ended without a result" in project.rows()[0].data.tags[NOTE]
        follower.wait_for("one ended without a result: row ", 3)
        (project.path / "go").unlink()
        with started(project, "dvc", "repro", "-k", "one", "b"):
            wait_for_rows(project, *ends.values(), "RUNNING")
            project.write({"go": ""})
        wait(lambda: sorted(statuses(project)) == sorted([*ends.values(), "FAILED", "FINISHED"]))
    found = {row.info.status: row.data.metrics for row in project.rows()[-2:]}
    assert found == {"FAILED": {}, "FINISHED": {"b/score": 1}}


def test_lock_in_writing(tmp_path: Path) -> None:
    """A dvc.lock that `dvc` is just writing for the next stage is no proof that one has failed."""
    writes = "cp dvc.lock copy; for i in $(seq 40); do : > dvc.lock; sleep 0.05; done; sleep 1"
    stages = {
        "train": {**train("raw.txt"), "cmd": f"{GATE}; {train()['cmd']}"},
        "a": {**evaluate("a"), "cmd": f"{writes}; cat copy > dvc.lock; {evaluate('a')['cmd']}"},
    }
    project = repository(tmp_path / "project", stages)
    with following(project) as follower, started(project, "dvc", "repro") as dvc:
        wait_for_rows(project, "RUNNING")
        follower.process.send_signal(signal.SIGSTOP)
        project.write({"go": ""})
        wait((project.path / "copy").exists)
        follower.process.send_signal(signal.SIGCONT)
        assert dvc.wait(180) == 0
        follower.wait_for("a is FINISHED")
        wait_for_rows(project, "FINISHED")
        (row,) = project.rows()
        assert row.data.metrics == {"train/loss": 0.25, "a/score": 1}
        assert follower.end() == 0
        assert not [line for line in follower.lines[1:] if " row '" not in line]


def test_rows_that_go(tmp_path: Path) -> None:
    """A row goes, with a line, if no recorded stage ran, or if another row has the result."""
    held = {**prepare(), "cmd": f"{GATE}; {prepare()['cmd']}"}
    stages = {"prepare": held, "train": train(), "a": evaluate("a")}
    project = repository(tmp_path / "project", stages)
    with following(project) as follower:
        with started(project, "dvc", "repro", "prepare"):
            wait_for_rows(project, "RUNNING")
            project.write({"go": ""})
        follower.wait_for("is in the trash: its stages have no result")
        assert project.rows() == []
        project.dvc("repro", "-q")
        wait(lambda: [results(row) for row in project.rows()] == [{"train", "a"}])
        wait_for_rows(project, "FINISHED")
        (row,) = project.rows()
        (project.path / "go").unlink()
        with started(project, "dvc", "repro", "-f"):
            wait_for_rows(project, "FINISHED", "RUNNING")
            project.write({"go": ""})
        follower.wait_for(f"is in the trash: {row.info.run_name!r} has its result")
        wait_for_rows(project, "FINISHED")
        (left,) = project.rows()
        assert left.info.run_id == row.info.run_id
        assert len(project.rows(deleted=True)) == 2


def test_not_seen(tmp_path: Path) -> None:
    """Stages that end between two looks, and results of the run cache, have their rows, too.

    They do not wait for the end of a long stage after them.
    """
    long = {**evaluate("b", "raw.txt"), "cmd": f"{GATE}; {evaluate('b')['cmd']}"}
    project = repository(tmp_path / "project", {"a": evaluate("a", "raw.txt"), "b": long})
    for value in (2, 1):
        project.set({"a": value})
        project.dvc("repro", "-q", "a")

    def has(*scores: int) -> bool:
        rows = [row for row in project.rows() if row.info.status == "FINISHED"]
        return [row.data.metrics.get("a/score") for row in rows] == [*scores]

    with following(project):
        wait_for_store(project, lambda: has(1))
        project.set({"a": 2})
        assert "is cached" in run_dvc(project, "repro", "a")
        wait_for_store(project, lambda: has(1, 2))
        project.set({"a": 3})
        with started(project, "dvc", "repro"):
            wait_for_store(project, lambda: has(1, 2, 3))
            wait(lambda: sorted(statuses(project)) == ["FINISHED"] * 3 + ["RUNNING"])
            project.write({"go": ""})


@pytest.mark.rest
@pytest.mark.parametrize("ends", ["a", "train"])
def test_two_lines(tmp_path: Path, ends: str) -> None:
    """A row has two lines, also if its last stage ends unseen while its `dvc` lives on.

    It does not wait for stages that a program may still run.
    """
    held = {**train("raw.txt"), "cmd": f"{GATE}; {train('raw.txt')['cmd']}"}
    project = repository(tmp_path / "project", {"train": held, "a": evaluate("a")})
    with following(project) as follower, started(project, sys.executable, "-c", IN_TURN) as program:
        wait_for_rows(project, "RUNNING")
        project.write({"go": ""})
        wait_for_rows(project, "FINISHED")
        if ends == "a":
            project.write({"next": ""})
        follower.wait_for(f"{ends} is FINISHED")
        assert program.poll() is None
        program.kill()
        lines = [line for line in follower.lines if "row '" in line]
    assert [line.split(": ")[0] for line in lines] == ["train is RUNNING", f"{ends} is FINISHED"]
    both = {"train/loss": 0.25, "a/score": 1}
    assert last(project).data.metrics == (both if ends == "a" else {"train/loss": 0.25})


def test_dead_followers(tmp_path: Path) -> None:
    """The next follower, or `record`, completes what a dead one has begun, in the same row.

    A second follower waits for the end of the first. Nothing stays RUNNING, no result is there
    twice, and `dvc` notices nothing.
    """
    held = {**train(), "cmd": f"{train()['cmd']}; {GATE}"}
    stages = {"prepare": prepare(), "train": held, "a": evaluate("a")}
    project = repository(tmp_path / "project", stages)
    seen = []
    ends = {"next": signal.SIGKILL, "record": signal.SIGTERM, "none": signal.SIGKILL}
    for number, (way, how) in enumerate(ends.items()):
        (project.path / "go").unlink(missing_ok=True)
        project.set({"rate": number})
        with ExitStack() as running:
            first = running.enter_context(following(project))
            dvc = running.enter_context(started(project, "dvc", "repro"))
            wait_for_rows(project, *["FINISHED"] * number, "RUNNING")
            wait_for_store(project, lambda: "train/loss" in last(project).data.metrics)
            begun = last(project).info.run_id
            if way == "next":
                second = running.enter_context(following(project))
                second.wait_for("another process follows this repository already")
            first.end(how)
            if way == "next":
                second.wait_for("is RUNNING")
            if way == "none":
                os.killpg(dvc.pid, signal.SIGKILL)
            else:
                project.write({"go": ""})
                assert dvc.wait(180) == 0
            if way == "next":
                second.wait_for("a is FINISHED")
        for _ in range(2):
            assert project.record().status == 0
            seen.append((way, last(project).info.run_id == begun, statuses(project)))
    left = {"next": ["FINISHED"], "record": ["FINISHED"] * 2, "none": ["FINISHED"] * 2 + ["KILLED"]}
    assert seen == [(way, True, found) for way, found in left.items() for _ in range(2)]
    curve = project.client.get_metric_history(project.rows()[0].info.run_id, "train/loss")
    assert [(point.step, point.value) for point in curve] == [(1, 0.5), (2, 0.25)]
