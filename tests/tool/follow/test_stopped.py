"""Ctrl-C ends a follower within three seconds, whatever it does."""

import signal
import time
from pathlib import Path

import pytest

from support.following import following, started
from support.pipelines import repository
from support.waiting import wait

pytestmark = [
    pytest.mark.pipeline,
    pytest.mark.rest,
    pytest.mark.filterwarnings("ignore"),  # warnings from MLflow
]

LONG = """
import pathlib, time
lines = (f"{i},{i}\\n" for i in range(300_000))
pathlib.Path("c.csv").write_text("step,loss\\n" + "".join(lines))
while not pathlib.Path("go").exists():
    time.sleep(0.05)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_long_curve(tmp_path: Path, number: signal.Signals) -> None:
    """A curve of 300,000 points is sent in steps, and its follower ends at once."""
    stage = {"cmd": "python s.py", "deps": ["s.py"], "plots": [{"c.csv": {"cache": False}}]}
    project = repository(tmp_path / "project", {"one": stage}, files={"s.py": LONG})
    with following(project) as follower, started(project, "dvc", "repro") as dvc:
        follower.wait_for("one is RUNNING")
        (row,) = wait(project.rows, 60)
        wait(lambda: "one/loss" in project.client.get_run(row.info.run_id).data.metrics, 60)
        began = time.monotonic()
        assert follower.end(number) == 0
        assert time.monotonic() - began < 4
        project.write({"go": ""})
        assert dvc.wait(60) == 0


def test_history(tmp_path: Path) -> None:
    """So does one that reads a history."""
    stages = {f"s{i}": {"cmd": f"echo {i} > {i}", "outs": [f"{i}"]} for i in range(300)}
    project = repository(tmp_path / "project", stages)
    project.remove_store()
    with started(project, "dvc-mlflow", "follow") as follower:
        time.sleep(3)
        began = time.monotonic()
        follower.send_signal(signal.SIGINT)
        assert follower.wait(60) in (0, 130, -signal.SIGINT)
        assert time.monotonic() - began < 4
