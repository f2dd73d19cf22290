"""Kills at seeded random moments: afterwards each result has one row, and none claims too much."""

import os
import random
import shutil
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from support.clone import environment
from support.followers import end_followers, followers
from support.healing import heal
from support.pipelines import Repository, evaluate, repository, train

pytestmark = [
    pytest.mark.rest,
    pytest.mark.pipeline,
    pytest.mark.filterwarnings("ignore"),  # warnings from MLflow
]

FIT = train("raw.txt")
STAGES = {
    "train": {**FIT, "cmd": f"sleep 1; {FIT['cmd']}"},
    "a": {**evaluate("a"), "meta": {"mlflow": {"prefix": "a/"}}},
}


def started(project: Repository, *words: str, **more: str) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        ["dvc-mlflow", *words],
        cwd=project.path,
        env=environment(**more),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def family(project: Repository, pid: int) -> list[psutil.Process]:
    """Return a process, all below it, and the follower, which has a session of its own."""
    with suppress(psutil.Error):
        below = psutil.Process(pid).children(recursive=True)
        return [psutil.Process(pid), *below, *followers(project.path)]
    return []


def kill(project: Repository, front: "subprocess.Popen[bytes]", rng: random.Random) -> str:
    """Kill the group, any process of it or the follower; return what was done."""
    those, number = family(project, front.pid), rng.choice([signal.SIGKILL, signal.SIGTERM])
    if not those or rng.random() < 0.25:
        with suppress(ProcessLookupError):
            os.killpg(front.pid, number)
        return f"{number.name} to the group"
    victim = rng.choice(those)
    with suppress(psutil.Error):
        words = " ".join(Path(word).name for word in victim.cmdline()[:4])
        victim.send_signal(number)
        return f"{number.name} to {words}"
    return "nothing was there"


def finished(project: Repository) -> list[dict[str, Any]]:
    """Return what the rows with a result show; no other row may claim one."""
    rows = project.table()
    assert "RUNNING" not in {row["status"] for row in rows}, rows
    return [row for row in rows if row["results"]]


def test_run(tmp_path: Path, slow: bool) -> None:
    """`dvc-mlflow run dvc repro`, what is below it and its follower, killed until its very end.

    In half of the cases, DVC's run cache has the results.
    """
    made = repository(tmp_path / "project", STAGES)
    began = time.monotonic()
    made.run("dvc-mlflow", "run", "dvc", "repro", "-q")
    made.run("dvc-mlflow", "record")
    took, expected = time.monotonic() - began, finished(made)
    assert len(expected) == 1
    made.commit("The results")
    lock, rng = made.lock, random.Random(46)  # noqa: S311
    for n in range(100 if slow else 4):
        project = made.copy(tmp_path / f"{n}" / "project")
        (project.path / "dvc.lock").unlink(missing_ok=True)
        for name in ("model.txt", "curve.csv", "a.json"):
            (project.path / name).unlink(missing_ok=True)
        is_cached = n % 2 == 0
        if not is_cached:
            shutil.rmtree(project.path / ".dvc/cache", ignore_errors=True)
        moment = rng.uniform(0, 1.1) * took
        front = started(project, "run", "dvc", "repro")
        with suppress(subprocess.TimeoutExpired):
            front.wait(moment)
        those = family(project, front.pid)
        done = kill(project, front, rng)
        front.wait(120)
        psutil.wait_procs(those, 60)
        what = f"{n}: {done} after {moment:.1f} s, {'cached' if is_cached else 'not cached'}"
        heal(project)
        project.dvc("repro", "-q")
        project.record()
        assert finished(project) == expected, what
        assert project.lock == lock, what
        end_followers(project.path)
