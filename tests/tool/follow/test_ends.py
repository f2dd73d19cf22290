"""How a stage has ended, as dvc.lock says: its row is FINISHED, FAILED or KILLED, once."""

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from support.following import SLOW, following, started, wait_for_rows
from support.pipelines import Stages, evaluate, prepare, repository, results, train
from support.waiting import wait

pytestmark = [
    pytest.mark.pipeline,
    pytest.mark.filterwarnings("ignore"),  # warnings from MLflow
]

LATE = 'test -e go || sleep 1; test -e go; echo "{\\"n\\": $(cat raw.txt)}" > m.json'
"""A command that fails after a second, unless there is a file `go`."""


def one(command: Any, **more: Any) -> Stages:
    """Return a pipeline of one stage."""
    metrics = [{"m.json": {"cache": False}}]
    return {"one": {"cmd": command, "deps": ["raw.txt"], "metrics": metrics, **more}}


def test_failed(tmp_path: Path) -> None:
    """A stage without a result has a FAILED row; after the next run there is one more."""
    project = repository(tmp_path / "project", one(f"set -e; {LATE}"))
    with following(project) as follower:
        assert project.run("dvc", "repro", check=False).returncode
        (row,) = wait_for_rows(project, "FAILED")
        assert "DVC has no result of stage one" in row.data.tags["mlflow.note.content"]
        follower.wait_for("one is FAILED: row ")
        project.write({"go": ""})
        project.run("dvc", "repro", "-q")
        assert wait_for_rows(project, "FAILED", "FINISHED")[1].data.metrics == {"one/n": 1}


def test_goes_on(tmp_path: Path) -> None:
    """With `repro -k`, one stage fails and another goes on: each has the row that is its own."""
    second = {**evaluate("b", "raw.txt"), "cmd": f"sleep 1; {evaluate('b')['cmd']}"}
    stages = {**one(f"set -e; {LATE}"), "b": second}
    project = repository(tmp_path / "project", stages)
    project.write({"go": ""})
    project.run("dvc", "repro", "-q")
    project.record()
    (project.path / "go").unlink()
    project.write({"raw.txt": "2\n"})
    project.set({"b": 2})
    with following(project):
        assert project.run("dvc", "repro", "-k", check=False).returncode
        *_, failed, new = wait_for_rows(project, "FINISHED", "FINISHED", "FAILED", "FINISHED")
    assert failed.data.metrics == {}
    assert new.data.metrics == {"b/score": 2}


def test_lock_in_writing(tmp_path: Path) -> None:
    """A dvc.lock that `dvc` is just writing for the next stage is no proof that one has failed."""
    slow = "until test -e go; do sleep 0.1; done"
    writes = "cp dvc.lock copy; for i in $(seq 40); do : > dvc.lock; sleep 0.05; done"
    stages = {
        "train": {**train("raw.txt"), "cmd": f"{slow}; {train()['cmd']}"},
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
        (row,) = wait_for_rows(project, "FINISHED")
    assert row.data.metrics == {"train/loss": 0.25, "a/score": 1}
    assert not [line for line in follower.lines if "FAILED" in line]


def test_same_bytes(tmp_path: Path) -> None:
    """A forced run with the same result is in the same row: its own goes to the trash."""
    project = repository(tmp_path / "project", SLOW)
    project.run("dvc", "repro", "-q")
    project.record()
    (row,) = project.rows()
    with following(project) as follower:
        with started(project, "dvc", "repro", "-f"):
            wait_for_rows(project, "FINISHED", "RUNNING")
        follower.wait_for("a is FINISHED: row ")
        (now,) = wait_for_rows(project, "FINISHED")
    assert now.info.run_id == row.info.run_id


@pytest.mark.parametrize("whom", ["dvc", "stage", "group"])
def test_killed(tmp_path: Path, whom: str) -> None:
    """A killed `dvc` leaves a KILLED row; DVC itself says that a killed stage has failed."""
    project = repository(tmp_path / "project", one("sleep 60"))
    with following(project), started(project, "dvc", "repro") as dvc:
        wait_for_rows(project, "RUNNING")
        if whom == "stage":
            project.run("pkill", "-9", "-P", f"{dvc.pid}")
        elif whom == "group":
            os.killpg(dvc.pid, signal.SIGINT)
        else:
            dvc.kill()
        wait_for_rows(project, "KILLED" if whom == "dvc" else "FAILED")
        os.killpg(dvc.pid, signal.SIGKILL) if whom == "dvc" else None


def test_python_lives_on(tmp_path: Path) -> None:
    """A stage that fails under DVC's API is FAILED, though its process lives on."""
    project = repository(tmp_path / "project", one(f"set -e; {LATE}"))
    program = (
        "import time\nfrom dvc.repo import Repo\n"
        "try: Repo().reproduce()\nexcept Exception: time.sleep(60)"
    )
    with following(project), started(project, sys.executable, "-c", program) as process:
        wait_for_rows(project, "RUNNING")
        wait_for_rows(project, "FAILED")
        assert process.poll() is None
        process.kill()


def test_commands(tmp_path: Path) -> None:
    """A stage with several commands has one row, from the first to the last."""
    commands = ["sleep 0.7", "echo 1 >> seen; sleep 0.7", 'echo "{\\"n\\": 5}" > m.json']
    project = repository(tmp_path / "project", one(commands))
    with following(project) as follower, started(project, "dvc", "repro"):
        (begun,) = wait_for_rows(project, "RUNNING")
        (row,) = wait_for_rows(project, "FINISHED")
        follower.wait_for("FINISHED")
        assert row.info.run_id == begun.info.run_id
        assert len([line for line in follower.lines if "RUNNING" in line]) == 1


def test_nothing_declared(tmp_path: Path) -> None:
    """A stage with neither deps nor outputs has no entry in rwlock, and a row all the same."""
    project = repository(tmp_path / "project", {"one": {"cmd": "sleep 1.5"}})
    with following(project):
        with started(project, "dvc", "repro"):
            (begun,) = wait_for_rows(project, "RUNNING")
        (row,) = wait_for_rows(project, "FINISHED")
        assert row.info.run_id == begun.info.run_id


def test_no_recorded_stage(tmp_path: Path) -> None:
    """A row that began with what is before the recorded stages goes if none of them ran."""
    project = repository(tmp_path / "project", SLOW)
    with following(project):
        with started(project, "dvc", "repro", "prepare"):
            wait_for_rows(project, "RUNNING")
        wait_for_rows(project)
        assert len(project.rows(deleted=True)) == 1


def test_not_seen(tmp_path: Path) -> None:
    """Stages shorter than a look, and results of the run cache, have their rows, too."""
    project = repository(tmp_path / "project", {"a": evaluate("a", "raw.txt")})
    for value in (2, 1):
        project.set({"a": value})
        project.run("dvc", "repro", "-q")
    with following(project):
        wait_for_rows(project, "FINISHED")
        project.set({"a": 2})
        assert "is cached" in project.run("dvc", "repro").stdout
        wait_for_rows(project, "FINISHED", "FINISHED")
        project.set({"a": 3})
        project.run("dvc", "repro", "-q")
        rows = wait_for_rows(project, "FINISHED", "FINISHED", "FINISHED")
    assert [row.data.metrics["a/score"] for row in rows] == [1, 2, 3]


def test_run_cache_while_another_runs(tmp_path: Path) -> None:
    """A result of the run cache does not wait for the end of a long stage after it."""
    long = {**evaluate("b", "raw.txt"), "cmd": f"sleep 8; {evaluate('b')['cmd']}"}
    project = repository(tmp_path / "project", {"a": evaluate("a", "raw.txt"), "b": long})
    for value in (1, 2, 1):
        project.set({"a": value})
        project.run("dvc", "repro", "-q", "a")
    project.set({"a": 2})
    with following(project), started(project, "dvc", "repro"):
        wait_for_rows(project, "FINISHED", "RUNNING")
        wait_for_rows(project, "FINISHED", "FINISHED", "RUNNING")


def test_dead_follower(tmp_path: Path) -> None:
    """What a killed follower has begun, the next one goes on with: the row stays the same."""
    held = {**train(), "cmd": f"{train()['cmd']}; until test -e go; do sleep 0.1; done"}
    project = repository(tmp_path / "project", {**SLOW, "train": held})
    with started(project, "dvc", "repro"):
        with following(project) as first:
            (begun,) = wait_for_rows(project, "RUNNING")
            first.end(signal.SIGKILL)
        with following(project) as second:
            second.wait_for("is RUNNING")
            project.write({"go": ""})
            (row,) = wait_for_rows(project, "FINISHED")
            wait(lambda: results(project.rows()[0]) == {"train", "a"})
            assert row.info.run_id == begun.info.run_id
            (row,) = project.rows()
    curve = project.client.get_metric_history(row.info.run_id, "train/loss")
    assert [(point.step, point.value) for point in curve] == [(1, 0.5), (2, 0.25)]


@pytest.mark.parametrize("is_well", [True, False])
def test_record_after_a_dead_follower(tmp_path: Path, is_well: bool) -> None:
    """`record` makes the table right: no result is there twice, and nothing stays RUNNING."""
    pause = 4 if is_well else 60
    end = {**train("raw.txt"), "cmd": f"{train('raw.txt')['cmd']}; sleep {pause}"}
    project = repository(tmp_path / "project", {"train": end, "a": evaluate("a")})
    with started(project, "dvc", "repro") as dvc:
        with following(project) as follower:
            wait(lambda: [r for r in project.rows() if "train/loss" in r.data.metrics])
            follower.end(signal.SIGKILL)
        if not is_well:
            os.killpg(dvc.pid, signal.SIGKILL)
    project.record()
    wait_for_rows(project, "FINISHED" if is_well else "KILLED")
    project.record()
    wait_for_rows(project, "FINISHED" if is_well else "KILLED")


@pytest.mark.parametrize("whom", ["dvc", "follower"])
def test_suspended(tmp_path: Path, whom: str) -> None:
    """A `dvc` that is suspended runs on, for the tool; a follower that was finds what it missed."""
    project = repository(tmp_path / "project", SLOW)
    with following(project) as follower, started(project, "dvc", "repro") as dvc:
        (begun,) = wait_for_rows(project, "RUNNING")
        pid = dvc.pid if whom == "dvc" else follower.process.pid
        os.killpg(pid, signal.SIGSTOP)
        time.sleep(5)
        if whom == "dvc":
            assert [row.info.status for row in project.rows()] == ["RUNNING"]
        os.killpg(pid, signal.SIGCONT)
        wait(lambda: [{"train", "a"}] == [results(row) for row in project.rows()])
        (row,) = wait_for_rows(project, "FINISHED")
        assert whom == "follower" or row.info.run_id == begun.info.run_id


def test_repeated(tmp_path: Path) -> None:
    """Runs of one stage after the other, by one process, each have what is their own."""
    stage = {**train("raw.txt"), "cmd": f"sleep 1.5; {train('raw.txt')['cmd']}"}
    project = repository(tmp_path / "project", {"prepare": prepare(), "train": stage})
    program = (
        "from pathlib import Path\nfrom dvc.repo import Repo\n"
        "for rate in range(4):\n"
        "    Path('params.yaml').write_text(f'rate: {rate}\\n')\n"
        "    Repo().reproduce('train', force=True)"
    )
    with following(project), started(project, sys.executable, "-c", program):
        wait(lambda: len([r for r in project.rows() if r.info.status == "FINISHED"]) == 4)
        rows = wait_for_rows(project, *["FINISHED"] * 4)
    assert sorted(row.data.params["rate"] for row in rows) == ["0", "1", "2", "3"]
