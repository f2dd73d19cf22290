"""A sweep of any project leaves complete experiments and rows, whatever stages and remotes do."""

import re
import shutil
import subprocess
from pathlib import Path
from unittest.mock import patch

import pytest

from dvc_mlflow.pipeline.tags import MD5
from support.kills import small_disk
from support.projects import (
    HANGING,
    SCORE,
    TOGETHER,
    Shared,
    check,
    small,
    stage,
    values,
    wait_until,
    writing,
)
from support.servers import MISSING

pytestmark = [
    pytest.mark.pipeline,
    pytest.mark.cluster,
    pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}"),
]


@pytest.fixture(scope="module")
def client(database: str) -> dict[str, str]:
    """The variable that leads to MLflow's database, without a server before it."""
    return {"MLFLOW_TRACKING_URI": database}


def test_run_cache(shared: Shared, tmp_path: Path) -> None:
    """A node runs no stage again, but for params that the run cache does not tell apart.

    A stage would have one result for every `size` (treeverse/dvc#10296).
    """
    make = f"exec sh -c 'echo ran >> {tmp_path}/ran; cat params.yaml > made.txt'"
    stages = {
        "prepare": {"cmd": make, "deps": ["score.py"], "params": ["prepare"], "outs": ["made.txt"]},
        "a": stage("exec python score.py a.json ${x} ${prepare.size}", "a", "x"),
    }
    stages["a"]["deps"] += ["made.txt"]
    files = {"dvc.yaml": {"stages": stages}, "params.yaml": {"x": 2, "prepare": {"size": 1}}}
    project = small(tmp_path, files, shared)
    assert "3 done, 0 failed" in project.sweep("-S", "x=3,5,7")
    assert len((tmp_path / "ran").read_text().split()) <= 2  # nodes
    said = project.sweep("-S", "prepare.size=5,6", "--metric=-a/score")
    assert re.search(r"^The best: 5 sweep-\w+ \(prepare.size=5\)", said, re.M)
    rows = [row for row in project.rows() if row.data.params["x"] == "2"]
    assert sorted(row.data.metrics["a/score"] for row in rows) == [5, 6]
    assert len({row.data.tags[f"{MD5}made.txt"] for row in rows}) == 2


STOPS = """
import os, time
while os.path.exists("{0}/one") and not os.path.exists("{0}/go"):
    time.sleep(0.1)
os.makedirs("{0}/one", exist_ok=True)
"""
"""The begin of a script that waits for a file if one has run before."""


def test_search(shared: Shared, tmp_path: Path) -> None:
    """A search whose driver was killed goes on, with whole numbers in any params file."""
    own = stage("exec python score.py a.json ${x} ${data.y}", "a", "x", {"more.toml": ["data.y"]})
    dvc = {"vars": ["more.toml"], "stages": {"a": own}}
    files = {"dvc.yaml": dvc, "more.toml": "[data]\ny = 3\n"}
    project = small(tmp_path, {**files, "score.py": STOPS.format(tmp_path) + SCORE}, shared)
    search = ["-S", "more.toml:data.y=interval(1,9)", "-S", "x=2", "--metric=-a/score", "-n", "3"]
    process = project.start(*search)
    wait_until(project.experiments, process)
    process.kill()
    process.wait(60)
    wait_until(lambda: not project.stages())
    (tmp_path / "go").touch()
    said = project.sweep(*search)
    assert re.search(r"^search-\w+: trials of commit \w{7}, [12] found, [12] new$", said, re.M)
    points = values(check(project, said, 3, 3), "more.data.y")
    assert len({*points}) == 3
    assert all(y in "123456789" for (y,) in points)


def test_full_disk(shared: Shared, tmp_path: Path) -> None:
    """What a node with a full disk fails, another one does."""
    project = writing(tmp_path, shared)
    with small_disk(shared.folder / "node-0" / tmp_path.name, "2m"):
        said = project.sweep("-S", "x=1,2")
    check(project, said, 2, 2)


def test_full_remote(shared: Shared, tmp_path: Path) -> None:
    """A full remote is told with cause and place; once it has room, the same command goes on."""
    project = writing(tmp_path, shared)
    with small_disk(tmp_path / "files", "2m") as disk, patch("dvc_mlflow.sweep.driver._TRIES", 1):
        said = project.sweep("-S", "x=1", check=False)
        full = rf"sweep-\w+ \(x=1\): .*No space left on .*DVC remote 'files' \({disk}\): .* on \S+$"
        assert re.search(f"^failed: {full}", said, re.M), said
        assert project.experiments() == []
        subprocess.run(["mount", "-o", "remount,size=20m", disk], check=True)
        assert "1 done, 0 failed" in project.sweep("-S", "x=1")
    assert len((tmp_path / "ran").read_text()) <= 2  # the nodes share no cache


def test_lost_outputs(shared: Shared, tmp_path: Path) -> None:
    """An experiment whose outputs the DVC remote lacks is named, and runs again.

    Here a trial loses them as soon as it has pushed, as where the remote is made anew.
    """
    project = writing(tmp_path, shared)
    hook = project.remote / "hooks/post-receive"
    hook.write_text(f"#!/bin/sh\nrm -r {tmp_path}/files/files\n")
    hook.chmod(0o755)
    said = project.sweep("-S", "x=1", check=False)
    place = f"DVC remote 'files' ({tmp_path}/files)"
    assert re.search(rf"^failed: sweep-\w+ \(x=1\): {re.escape(place)} lacks outputs", said, re.M)
    assert project.rows() == []
    hook.unlink()
    for node in ("node-0", "node-1"):
        shutil.rmtree(shared.folder / node / tmp_path.name, ignore_errors=True)
    said = project.sweep("-S", "x=1")
    assert re.search(" 0 found, 1 new$", said, re.M)
    check(project, said, 1, 1)
    assert (tmp_path / "ran").read_text() == ".."


def test_hanging_trial(shared: Shared, tmp_path: Path) -> None:
    """A trial that hangs is ended with its processes after the timeout, and has no row."""
    project = small(tmp_path, HANGING, shared)
    said = project.sweep("-S", "x=1", "--timeout", "6", check=False)
    assert re.search(r"^sweep-\S+ \(x=1\) failed on .*: ended after 6 s \(--timeout\)", said, re.M)
    wait_until(lambda: not project.stages())
    assert project.rows() == []


LATER = """
import glob
if min(os.listdir("{begun}")) != str(os.getpid()):
    while not glob.glob("{remote}/refs/exps/*/*/sweep-*"):
        time.sleep(0.1)
"""
"""What follows on `TOGETHER`: one of both waits for the result of the other."""


def test_two_drivers(shared: Shared, tmp_path: Path) -> None:
    """If two sweeps run the same trial at the same time, the first result stands, in one row."""
    (begun := tmp_path / "begun").mkdir()
    later = LATER.format(begun=begun, remote=tmp_path / f"{tmp_path.name}.git")
    script = TOGETHER.format(folder=begun) + later + SCORE
    project = small(tmp_path, {"score.py": script}, shared)
    both = [project.start("-S", "x=1") for _ in range(2)]
    said = [process.said() for process in both]
    assert [process.poll() for process in both] == [0, 0], said
    assert all("1 done, 0 failed" in each for each in said)
    assert len(project.experiments()) == 1
    assert [row.info.status for row in project.rows()] == ["FINISHED"]
