"""How a stage has ended, as dvc.lock says: its row is FINISHED, FAILED or KILLED, once."""

import os
import shutil
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from support.following import (
    SLOW,
    following,
    run_dvc,
    started,
    statuses,
    wait_for_rows,
    wait_for_store,
)
from support.pipelines import Repository, evaluate, last, prepare, repository, results, train
from support.waiting import wait

pytestmark = [
    pytest.mark.pipeline,
    pytest.mark.filterwarnings("ignore"),  # warnings from MLflow
]

GATE = "until test -e go; do sleep 0.1; done"
LIVES_ON = """
import time
from dvc.repo import Repo
try: Repo().reproduce("one")
except Exception: time.sleep(60)
"""
"""A program that runs a stage that fails by DVC's API, and lives on."""


def end_without_result(project: Repository, way: str) -> None:
    """Let the stage `one` fail, or kill it, its `dvc` or both; wait until its row says so."""
    (project.path / "long").unlink() if way in ("fails", "python") else project.write({"long": ""})
    command = ["dvc", "repro", "one"] if way != "python" else [sys.executable, "-c", LIVES_ON]
    before = statuses(project)
    with started(project, *command) as process:
        wait_for_rows(project, *before, "RUNNING")
        if way == "stage":
            project.run("pkill", "-9", "-P", f"{process.pid}")
        elif way == "group":
            os.killpg(process.pid, signal.SIGINT)
        elif way == "dvc":
            process.kill()
        wait(lambda: "RUNNING" not in statuses(project))
        assert process.poll() is None or way != "python"
        if way in ("dvc", "python"):
            os.killpg(process.pid, signal.SIGKILL)


def test_without_result(tmp_path: Path) -> None:
    """A stage that fails, for any reason, has a FAILED row; a killed `dvc` leaves a KILLED one.

    With `repro -k`, one stage fails and another goes on: each has the row that is its own.
    """
    fails = "test -e long && exec sleep 60; test -e go || sleep 1; test -e go; "
    one = {
        "cmd": f'set -e; {fails}echo "{{\\"n\\": $(cat raw.txt)}}" > m.json',
        "deps": ["raw.txt"],
        "metrics": [{"m.json": {"cache": False}}],
    }
    second = {**evaluate("b", "raw.txt"), "cmd": f"sleep 1; {evaluate('b')['cmd']}"}
    project = repository(tmp_path / "project", {"one": one, "b": second}, files={"long": ""})
    ends = {
        "fails": "FAILED",
        "stage": "FAILED",
        "group": "FAILED",
        "dvc": "KILLED",
        "python": "FAILED",
    }
    with following(project) as follower:
        for way in ends:
            end_without_result(project, way)
        assert dict(zip(ends, statuses(project), strict=True)) == ends
        assert (
            "stage one ended without a result" in project.rows()[0].data.tags["mlflow.note.content"]
        )
        follower.wait_for("one ended without a result: row ", 4)
        project.write({"go": ""})
        run_dvc(project, "repro", "-q")
        before = [*ends.values(), "FINISHED", "FINISHED"]
        rows, both = wait_for_rows(project, *before)[-2:], {"one/n": 1, "b/score": 1}
        assert {key: n for row in rows for key, n in row.data.metrics.items()} == both
        (project.path / "go").unlink()
        project.write({"raw.txt": "2\n"})
        project.set({"b": 2})
        run_dvc(project, "repro", "-k", check=False)
        wait(lambda: sorted(statuses(project)) == sorted([*before, "FAILED", "FINISHED"]))
        rows = project.rows()[-2:]
    found = {row.info.status: row.data.metrics for row in rows}
    assert found == {"FAILED": {}, "FINISHED": {"b/score": 2}}


def test_lock_in_writing(tmp_path: Path) -> None:
    """A dvc.lock that `dvc` is just writing for the next stage is no proof that one has failed."""
    writes = "cp dvc.lock copy; for i in $(seq 40); do : > dvc.lock; sleep 0.05; done"
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
        assert dvc.wait(60) == 0
        follower.wait_for("a is FINISHED")
        (row,) = wait_for_rows(project, "FINISHED")
        assert row.data.metrics == {"train/loss": 0.25, "a/score": 1}
        assert not [line for line in follower.lines if "FAILED" in line]


def test_replaced_lock(tmp_path: Path) -> None:
    """If git has replaced dvc.lock before anybody has looked, that is no change of the inputs."""
    fit = {**train("raw.txt"), "cmd": f"{GATE}; {train('raw.txt')['cmd']}"}
    project = repository(tmp_path / "project", {"train": fit, "a": evaluate("a")})
    project.write({"go": ""})
    project.dvc("repro", "-q")
    project.commit("1")
    (project.path / "go").unlink()
    project.set({"rate": 2})
    with following(project) as follower:
        with started(project, "dvc", "repro") as dvc:
            wait_for_rows(project, "FINISHED", "RUNNING")
            wait_for_store(project, lambda: last(project).data.params.get("rate") == "2")
            follower.process.send_signal(signal.SIGSTOP)
            project.write({"go": ""})
            assert dvc.wait(60) == 0
        project.commit("2")
        project.git("switch", "-q", "-c", "other", "HEAD~1")
        follower.process.send_signal(signal.SIGCONT)
        follower.wait_for("rate=2'", 2)
    rows = [(row.data.params["rate"], row.info.status) for row in project.rows()]
    assert sorted(rows) == [("1", "FINISHED"), ("2", "FINISHED")], follower.lines


def test_lost_file(tmp_path: Path) -> None:
    """That a row lacks a file is said once, and not again with each commit that has the result."""
    stage = {"cmd": "echo '{\"n\": 1}' > a.json", "metrics": ["a.json"]}
    project = repository(tmp_path / "project", {"a": stage})
    project.dvc("repro", "-q")
    project.commit("1")
    (project.path / "a.json").unlink()
    shutil.rmtree(project.path / ".dvc" / "cache" / "files")
    with following(project) as follower:
        for message in ("2", "3"):
            project.write({"note": message})
            project.commit(message)
            assert "a.json" in project.record().error
        assert [line for line in follower.lines if "a.json: not as in" in line] == []
        assert len([line for line in follower.lines if "rows that lack files: 1;" in line]) == 1


def test_one_row(tmp_path: Path) -> None:
    """Whatever comes between, what runs has one row, and a result has one.

    A row goes if none of its recorded stages ran, or if the result is there already. A `dvc` that
    is suspended runs on; a follower that was suspended finds what it has missed.
    """
    project = repository(tmp_path / "project", SLOW)
    with following(project) as follower:
        with started(project, "dvc", "repro", "prepare"):
            wait_for_rows(project, "RUNNING")
        wait_for_rows(project)
        assert len(project.rows(deleted=True)) == 1
        with started(project, "dvc", "repro", "-f") as dvc:
            (begun,) = wait_for_rows(project, "RUNNING")
            os.killpg(dvc.pid, signal.SIGSTOP)
            assert project.record().status == 0  # the follower has looked
            assert statuses(project) == ["RUNNING"]
            os.killpg(dvc.pid, signal.SIGCONT)
            follower.wait_for("a is FINISHED: row ")
            (row,) = wait_for_rows(project, "FINISHED")
            assert row.info.run_id == begun.info.run_id
        with started(project, "dvc", "repro", "-f"):
            wait_for_rows(project, "FINISHED", "RUNNING")
        follower.wait_for("a is FINISHED: row ", 2)
        (row,) = wait_for_rows(project, "FINISHED")
        assert row.info.run_id == begun.info.run_id
        project.set({"rate": 2})
        with started(project, "dvc", "repro") as dvc:
            wait_for_rows(project, "FINISHED", "RUNNING")
            project.record()  # then it holds no lock that `dvc` needs
            follower.process.send_signal(signal.SIGSTOP)
            dvc.wait(60)
            follower.process.send_signal(signal.SIGCONT)
        wait_for_store(
            project, lambda: [results(row) for row in project.rows()] == [{"train", "a"}] * 2
        )
        wait_for_rows(project, "FINISHED", "FINISHED")


@pytest.mark.parametrize(
    "stage",
    [
        {
            "cmd": ["sleep 0.7", "sleep 0.7", 'echo "{\\"n\\": 5}" > m.json'],
            "deps": ["raw.txt"],
            "metrics": [{"m.json": {"cache": False}}],
        },
    ],
    ids=["several commands"],
)
def test_odd_stage(tmp_path: Path, stage: dict[str, Any]) -> None:
    """A stage with several commands has one row, as has one that rwlock does not name."""
    project = repository(tmp_path / "project", {"one": stage})
    with following(project) as follower:
        with started(project, "dvc", "repro"):
            (begun,) = wait_for_rows(project, "RUNNING")
        (row,) = wait_for_rows(project, "FINISHED")
        follower.wait_for("FINISHED")
        assert row.info.run_id == begun.info.run_id
        assert len([line for line in follower.lines if "RUNNING" in line]) == 1


def test_not_seen(tmp_path: Path) -> None:
    """Stages that end between two looks, and results of the run cache, have their rows, too.

    They do not wait for the end of a long stage after them.
    """
    long = {**evaluate("b", "raw.txt"), "cmd": f"{GATE}; {evaluate('b')['cmd']}"}
    project = repository(tmp_path / "project", {"a": evaluate("a", "raw.txt"), "b": long})
    for value in (2, 4, 1):
        project.set({"a": value})
        project.dvc("repro", "-q", "a")

    def has(*scores: int, status: str = "FINISHED") -> bool:
        rows = [row for row in project.rows() if row.info.status == "FINISHED"]
        is_right = [row.data.metrics.get("a/score") for row in rows] == [*scores]
        return is_right and statuses(project)[-1] == status

    with following(project):
        wait_for_store(project, lambda: has(1))
        project.set({"a": 2})
        assert "is cached" in run_dvc(project, "repro", "a")
        wait_for_store(project, lambda: has(1, 2))
        project.set({"a": 3})
        run_dvc(project, "repro", "-q", "a")
        wait_for_store(project, lambda: has(1, 2, 3))
        project.set({"a": 4})
        with started(project, "dvc", "repro"):
            wait(lambda: "RUNNING" in statuses(project))
            wait(lambda: sorted(statuses(project)) == ["FINISHED"] * 4 + ["RUNNING"])
            project.write({"go": ""})


def test_dead_followers(tmp_path: Path) -> None:
    """The next follower, or `record`, completes what a dead one has begun, in the same row.

    Nothing stays RUNNING, no result is there twice, and `dvc` notices nothing.
    """
    held = {**train(), "cmd": f"{train()['cmd']}; {GATE}"}
    project = repository(tmp_path / "project", {**SLOW, "train": held})
    seen, ends = (
        [],
        [("next", signal.SIGKILL), ("record", signal.SIGTERM), ("none", signal.SIGKILL)],
    )
    for number, (way, how) in enumerate(ends):
        (project.path / "go").unlink(missing_ok=True)
        project.set({"rate": number})
        with started(project, "dvc", "repro") as dvc:
            with following(project) as first:
                wait_for_rows(project, *["FINISHED"] * number, "RUNNING")
                wait_for_store(project, lambda: "train/loss" in last(project).data.metrics)
                begun = last(project).info.run_id
                first.end(how)
            if way == "none":
                os.killpg(dvc.pid, signal.SIGKILL)
            elif way == "record":
                project.write({"go": ""})
                assert dvc.wait(60) == 0
            else:
                with following(project) as second:
                    second.wait_for("is RUNNING")
                    project.write({"go": ""})
                    wait_for_store(project, lambda: results(last(project)) == {"train", "a"})
                    wait_for_rows(project, "FINISHED")
        for _ in range(2):
            assert project.record().status == 0
            seen.append((way, last(project).info.run_id == begun, statuses(project)))
    done = [("next", 1), ("record", 2)]
    assert seen == [
        *((way, True, ["FINISHED"] * n) for way, n in done for _ in range(2)),
        *(("none", True, ["FINISHED", "FINISHED", "KILLED"]) for _ in range(2)),
    ]
    curve = project.client.get_metric_history(project.rows()[0].info.run_id, "train/loss")
    assert [(point.step, point.value) for point in curve] == [(1, 0.5), (2, 0.25)]


def test_repeated(tmp_path: Path) -> None:
    """Runs of one stage after the other, by one process, each have what is their own."""
    stage = {**train("raw.txt"), "cmd": f"sleep 1.5; {train('raw.txt')['cmd']}"}
    project = repository(tmp_path / "project", {"prepare": prepare(), "train": stage})
    program = (
        "from pathlib import Path\nfrom dvc.repo import Repo\n"
        "for rate in range(3):\n"
        "    Path('params.yaml').write_text(f'rate: {rate}\\n')\n"
        "    Repo().reproduce('train', force=True)"
    )
    with following(project), started(project, sys.executable, "-c", program):
        wait(lambda: statuses(project).count("FINISHED") == 3)
        rows = wait_for_rows(project, *["FINISHED"] * 3)
    assert sorted(row.data.params["rate"] for row in rows) == ["0", "1", "2"]
