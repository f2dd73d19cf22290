"""The machine is hostile: a stage ends as it would without the tool, and keeps its row."""

from pathlib import Path

import pytest

from support.following import following, started, wait_for_rows, wait_for_store
from support.pipelines import Repository, repository
from support.waiting import wait

pytestmark = [
    pytest.mark.pipeline,
    pytest.mark.filterwarnings("ignore"),  # warnings from MLflow
]

WAITS = """
import pathlib, time
pathlib.Path("began").touch()
while not pathlib.Path("go").exists():
    time.sleep(0.05)
pathlib.Path("m.json").write_text('{"n": 1}')
"""


def waiting(folder: Path) -> Repository:
    """Return a pipeline whose stage waits for a file `go`."""
    metrics = [{"m.json": {"cache": False}}]
    stage = {"cmd": "python script.py", "deps": ["script.py"], "metrics": metrics}
    return repository(folder / "project", {"one": stage}, files={"script.py": WAITS})


@pytest.mark.rest
def test_forgotten_row(tmp_path: Path) -> None:
    """`forget` of the row of a running stage costs one line; the result has a row of its own."""
    project = waiting(tmp_path)
    with following(project), started(project, "dvc", "repro") as dvc:
        (row,) = wait(project.rows, 120)
        assert project.tool("forget", row.info.run_id).status == 0
        (project.path / "go").touch()
        assert dvc.wait(120) == 0
    assert project.record().status == 0
    (added,) = project.rows()
    assert (added.info.status, added.data.metrics) == ("FINISHED", {"one/n": 1})


FAKETIME = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)


@pytest.mark.rest
@pytest.mark.skipif(not FAKETIME, reason="needs libfaketime")
def test_clock_set_back(tmp_path: Path) -> None:
    """A clock that is set back while a stage runs, or before, costs neither stage nor row.

    Before the second run, files were changed later than it begins.
    """
    project, clock = waiting(tmp_path), tmp_path / "clock"
    clock.write_text("+0")
    faked = {"LD_PRELOAD": f"{FAKETIME}", "FAKETIME_TIMESTAMP_FILE": f"{clock}"}
    faked |= {"FAKETIME_NO_CACHE": "1", "DONT_FAKE_MONOTONIC": "1", "NO_FAKE_STAT": "1"}
    with following(project, **faked):
        with started(project, "dvc", "repro", **faked) as dvc:
            wait(project.rows, 120)
            (tmp_path / "later").write_text("-1d")
            (tmp_path / "later").rename(clock)  # it is read all the time
            (project.path / "go").touch()
            assert dvc.wait(120) == 0
        wait_for_rows(project, "FINISHED")
        (project.path / "script.py").write_text(WAITS.replace("1}", "2}"))
        with started(project, "dvc", "repro", **faked) as dvc:
            assert dvc.wait(120) == 0
        assert project.record().status == 0
    rows = {row.data.metrics["one/n"]: row.info for row in project.rows()}
    assert {n: row.status for n, row in rows.items()} == {1: "FINISHED", 2: "FINISHED"}
    assert project.record().status == 0
    assert len(project.rows()) == 2


ODD_CURVES = """
import os, pathlib, time
whats = {whats}
for name in whats:
    pathlib.Path(f"{name}.csv").write_text("step,loss\\n1,0.5\\n")
while not pathlib.Path("go").exists():
    time.sleep(0.05)
for name, what in whats.items():
    curve = pathlib.Path(f"{name}.csv")
    curve.unlink()
    exec(what)
with open("good.csv", "w", buffering=1) as good:
    good.write("step,loss\\n")
    for step in range(1, 10_000):
        good.write(f"{step},{step}\\n")
        if pathlib.Path("end").exists():
            break
        time.sleep(0.05)
for name in whats:
    curve = pathlib.Path(f"{name}.csv")
    curve.unlink()
    curve.write_text("step,loss\\n1,0.25\\n2,0.125\\n")
"""
WHATS = {
    "fifo": "os.mkfifo(curve)",
    "device": "os.symlink('/dev/zero', curve)",
    "line": "curve.write_text('step,loss\\n' + 'x' * 50_000_000)",
    "short": "curve.write_text('step')",
    "loop": "os.symlink(curve.name, curve)",
}


@pytest.mark.rest
def test_odd_curves(tmp_path: Path) -> None:
    """A curve that becomes a FIFO, a device, one line without an end, is read when it is whole."""
    script = ODD_CURVES.replace("{whats}", f"{WHATS}")
    plots = [{f"{name}.csv": {"cache": False, "x": "step"}} for name in ("good", *WHATS)]
    stage = {"cmd": "python script.py", "deps": ["script.py"], "plots": plots}
    project = repository(tmp_path / "project", {"one": stage}, files={"script.py": script})
    good = "one/good/loss"

    def shown() -> dict[str, float]:
        (row,) = project.rows()
        return dict(row.data.metrics)

    with following(project), started(project, "dvc", "repro") as dvc:
        wait_for_rows(project, "RUNNING")
        wait_for_store(project, lambda: {f"one/{name}/loss" for name in WHATS} <= shown().keys())
        project.write({"go": ""})
        seen = wait_for_store(project, lambda: shown().get(good))
        wait_for_store(project, lambda: shown()[good] > seen)  # the odd ones were read in between
        project.write({"end": ""})
        assert dvc.wait(60) == 0
    assert project.record().status == 0
    (row,) = project.rows()
    for name in WHATS:
        history = project.client.get_metric_history(row.info.run_id, f"one/{name}/loss")
        points = [(point.step, point.value) for point in history]
        assert points == [(1, 0.25), (2, 0.125)], name
    assert row.info.status == "FINISHED"


LEAVES = {
    "daemon": "(setsid sh -c 'sleep 20' &)",
    "closes": "exec 0<&- 1>&- 2>&-; echo 1 > other",
    "group": "setsid sh -c 'sleep 1; echo 1 > other'",
    "stopped": "sh -c 'kill -STOP $$' & sleep 1; kill -CONT $!",
}


@pytest.mark.rest
def test_odd_stages(tmp_path: Path) -> None:
    """A stage that leaves a daemon, closes its streams or changes its group ends as without it."""
    stages = {
        name: {
            "cmd": f"{cmd}; echo '{{\"n\": 1}}' > {name}.json",
            "metrics": [{f"{name}.json": {"cache": False}}],
            "deps": ["raw.txt"],
        }
        for name, cmd in LEAVES.items()
    }
    project = repository(tmp_path / "project", stages)
    plain = project.copy(tmp_path / "plain")
    done = project.run("dvc-mlflow", "run", "dvc", "repro", check=False)
    twin = plain.run("dvc", "repro", check=False)
    assert done.returncode == twin.returncode == 0
    assert done.stdout == twin.stdout
    assert project.lock == plain.lock
    assert project.record().status == 0
    measured = {key: n for row in project.rows() for key, n in row.data.metrics.items()}
    assert measured == {f"{name}/n": 1 for name in LEAVES}
