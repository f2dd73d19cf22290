"""Followers that are killed at any moment: afterwards `record` has each result in one row."""

import os
import random
import signal
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from support.disks import small_disk
from support.following import SLOW, following, run_dvc, started, statuses, wait_for_rows
from support.healing import heal
from support.pipelines import Repository, repository, results
from support.waiting import wait

pytestmark = [
    pytest.mark.pipeline,
    pytest.mark.rest,
    pytest.mark.filterwarnings("ignore"),  # warnings from MLflow
]


def is_right(project: Repository, number: int) -> bool:
    """Whether the newest result is in one row, and no row is RUNNING."""
    rows = project.rows()
    whole = [row for row in rows if row.data.params.get("a") == f"{number}"]
    return (
        [row.info.status for row in whole if results(row)] == ["FINISHED"]
        and results(whole[-1]) == {"train", "a"}
        and "RUNNING" not in {row.info.status for row in rows}
        and len(whole) == 1
    )


def test_followers(tmp_path: Path, slow: bool) -> None:
    """A follower is killed in each of several runs, 40 of them with `--slow`."""
    project = repository(tmp_path / "project", SLOW)
    dice = random.Random(1)  # noqa: S311
    for number in range(2, 42 if slow else 6):
        project.set({"a": number, "rate": number})
        with following(project) as follower, started(project, "dvc", "repro", "-f"):
            time.sleep(dice.random() * 4)
            follower.end(signal.SIGKILL)
        project.record()
        assert is_right(project, number), [
            (r.info.status, r.data.params, results(r)) for r in project.rows()
        ]


def test_both(tmp_path: Path) -> None:
    """With `dvc` killed at the same moment, nothing stays RUNNING, and the next run is right."""
    project = repository(tmp_path / "project", SLOW)
    for number, pause in enumerate((0.8, 2.4), 2):
        project.set({"a": number, "rate": number})
        with following(project) as follower, started(project, "dvc", "repro", "-f") as dvc:
            time.sleep(pause)
            os.killpg(dvc.pid, signal.SIGKILL)
            follower.end(signal.SIGKILL)
        heal(project)
        project.record()
        assert "RUNNING" not in {row.info.status for row in project.rows()}
        run_dvc(project, "repro", "-q", "-f")
        project.record()
        assert len([row for row in project.rows() if {"train", "a"} == results(row)]) == number - 1


def test_worker_that_stands_still(tmp_path: Path) -> None:
    """No row is FAILED because DVC's queue takes its time to fetch an experiment from its copy."""
    gate = tmp_path / "go"
    train = {
        "cmd": f"until test -e {gate}; do sleep 0.1; done; echo '{{\"n\": 1}}' > m.json",
        "deps": ["raw.txt"],
        "metrics": [{"m.json": {"cache": False}}],
    }
    project = repository(tmp_path / "project", {"train": train})
    with following(project):
        project.dvc("exp", "run", "--queue", "-q")
        with started(project, "sh", "-c", "dvc queue start"):
            (row,) = wait_for_rows(project, "RUNNING")
        dvc = psutil.Process(int(row.data.tags["dvc-mlflow.process"].partition("@")[0]))
        worker = dvc.parent()
        assert worker is not None
        worker.suspend()
        try:
            gate.touch()
            wait(lambda: dvc.status() == psutil.STATUS_ZOMBIE)
            time.sleep(4)  # a follower waits for 3 s if nothing is to be seen of a result
            assert statuses(project) == ["RUNNING"]
        finally:
            worker.resume()
        assert wait_for_rows(project, "FINISHED")[0].info.run_id == row.info.run_id


def test_full_disk(tmp_path: Path) -> None:
    """A store on a full disk costs a line; with room again, the rows are there."""
    project = repository(tmp_path / "project", SLOW)
    with small_disk(tmp_path / "disk", "4M") as disk:
        address = f"sqlite:///{disk}/rows.db"
        with following(project, MLFLOW_TRACKING_URI=address) as follower:
            run_dvc(project, "repro", "-q")
            follower.wait_for("a is FINISHED")
            with (disk / "rest").open("wb", buffering=0) as rest, suppress(OSError):
                while True:
                    rest.write(b"0" * 4096)
            project.set({"a": 2})
            run_dvc(project, "repro", "-q")
            follower.wait_for("disk")
            (disk / "rest").unlink()
            wait(lambda: "is FINISHED" in follower.lines[-1] or "added" in follower.lines[-1], 90)
