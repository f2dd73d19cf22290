"""A follower that runs for long: what it uses stays flat, and every result has its row."""

import os
import random
import signal
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from support.following import following, run_dvc, started, statuses, wait_for_store
from support.healing import heal
from support.pipelines import Repository, repository

pytestmark = [
    pytest.mark.pipeline,
    pytest.mark.rest,
    pytest.mark.filterwarnings("ignore"),  # warnings from MLflow
]

WRITE = 'sleep 1; echo "{\\"n\\": $(sed -n "s/^rate: //p" params.yaml)}" > m.json'
STAGES = {
    "one": {
        "cmd": f"{WRITE}; cp m.json model.json",
        "params": ["rate"],
        "outs": ["model.json"],
        "metrics": [{"m.json": {"cache": False}}],
    }
}


def used(process: psutil.Process, project: Repository) -> dict[str, int]:
    """Return what a follower uses: MB, threads, descriptors, and files of the tool's."""
    own = project.path / ".git/dvc-mlflow"
    return {
        "memory": process.memory_info().rss >> 20,
        "threads": process.num_threads(),
        "descriptors": process.num_fds(),
        "files": sum(1 for _ in own.rglob("*")),
    }


def test_soak(tmp_path: Path, slow: bool) -> None:
    """Stages, branches, `dvc gc` and kills in turn, 500 of them with `--slow`."""
    project = repository(tmp_path / "project", STAGES)
    dice, n = random.Random(6), 500 if slow else 12  # noqa: S311
    wanted, before = set[int](), dict[str, int]()

    def missing() -> set[int]:
        rows = [row for row in project.rows() if row.info.status == "FINISHED"]
        return wanted - {int(row.data.metrics["one/n"]) for row in rows}

    with following(project) as follower:
        process = psutil.Process(follower.process.pid)
        for number in range(n):
            project.set({"rate": number})
            way = dice.choice(["repro", "repro", "repro", "exp", "temp", "kill"])
            if way == "kill":
                with started(project, "dvc", "repro") as dvc:
                    time.sleep(dice.random() * 2)
                    with suppress(ProcessLookupError):  # it can have ended
                        os.killpg(dvc.pid, signal.SIGKILL)
                heal(project)
            elif way == "repro":
                run_dvc(project, "repro", "-q")
                wanted.add(number)
            else:
                words = ["exp", "run", "-q", *(["--temp"] if way == "temp" else [])]
                run_dvc(project, *words)
                wanted.add(number)
            # What is replaced before the follower has looked would be lost.
            wait_for_store(project, lambda: not missing(), 60)
            if number % 7 == 6:
                project.commit(f"At {number}")
                project.git("switch", "-q", "-c", f"b{number}", "HEAD~1" if number > 7 else "HEAD")
            if number % 11 == 10:
                project.dvc("gc", "-q", "-f", "-A")
            if number == n // 3:
                before = used(process, project)

        after = used(process, project)
    done = [row for row in project.rows() if row.info.status == "FINISHED"]
    assert len({row.data.metrics["one/n"] for row in done}) == len(done)
    assert "RUNNING" not in statuses(project)
    print(n, "stages:", before, after)
    assert after["memory"] < 1.2 * before["memory"]
    assert after["threads"] <= before["threads"]
    assert after["descriptors"] <= before["descriptors"] + 16  # those of two temporary copies
    assert after["files"] <= before["files"] + 3
