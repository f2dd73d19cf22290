"""A sweep of any project leaves complete experiments and rows, whatever its remotes do."""

import re
import shutil
import subprocess
from pathlib import Path
from unittest.mock import patch

import pytest

from support.clone import Clone
from support.disks import small_disk
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
from support.services import MISSING

pytestmark = [
    pytest.mark.pipeline,
    pytest.mark.cluster,
    pytest.mark.filterwarnings("ignore"),  # warnings from Ray and MLflow
    pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}"),
]


def test_run_cache(shared: Shared, tmp_path: Path) -> None:
    """Any node restores an unchanged stage, but for params that the run cache does not tell apart.

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
    assert "2 done, 0 failed" in project.sweep("-S", "x=3,4")
    assert "1 done, 0 failed" in project.sweep("-S", "x=5", "--clones", f"{tmp_path}/new")
    assert len((tmp_path / "ran").read_text().split()) <= 2
    said = project.sweep("-S", "prepare.size=5,6,7", "--metric=-a/score")
    assert re.search(r"^The best: 5 sweep-\w+ \(prepare.size=5\)", said, re.M)
    rows = [row for row in project.rows() if row.data.params["x"] == "2"]
    assert sorted(row.data.metrics["a/score"] for row in rows) == [5, 6, 7]
    assert len({row.data.tags["md5.made.txt"] for row in rows}) == 3


def test_foreach(shared: Shared, tmp_path: Path) -> None:
    """Each item of a foreach is a row of the trial; the best of them is the trial's metric."""
    item = stage("exec python score.py ${key}.json ${x} ${item}", "${key}", "x")
    dvc = {"stages": {"a": {"foreach": "${offsets}", "do": item}}}
    params = {"x": 0, "offsets": {"red": 5, "blue": 7}}
    project = small(tmp_path, {"dvc.yaml": dvc, "params.yaml": params}, shared)
    said = project.sweep("-S", "x=1,2", "--metric=-a/score")
    assert re.search(r"^The best: 5 sweep-\w+ \(x=2\)", said, re.M)
    rows = check(project, said, 2, 4)
    assert values(rows, "x", "key") == [(x, key) for x in "12" for key in ("blue", "red")]


def test_search(shared: Shared, tmp_path: Path) -> None:
    """A search whose driver was killed goes on, with whole numbers in any params file.

    It ends with one row for each point; then a larger one runs what is new.
    """
    pytest.importorskip("optuna", reason="not installed: the extra `cluster` (make cluster-setup)")
    own = stage("exec python score.py a.json ${x} ${data.y}", "a", "x", {"more.toml": ["data.y"]})
    dvc = {"vars": ["more.toml"], "stages": {"a": own}}
    project = small(tmp_path, {"dvc.yaml": dvc, "more.toml": "[data]\ny = 3\n"}, shared)
    search = ["-S", "more.toml:data.y=interval(1,9)", "-S", "x=2", "--metric=-a/score", "-n", "4"]
    process = project.start(*search)
    wait_until(project.experiments, process)
    process.kill()
    process.communicate()
    said = project.sweep(*search)
    assert re.search(r"^search-\w+: trials of commit \w{7}, [123] found, [123] new$", said, re.M)
    points = values(check(project, said, 4, 4), "more.data.y")
    assert len({*points}) == 4
    assert all(y in "123456789" for (y,) in points)
    assert "5 done, 0 failed" in project.sweep(*search[:-1], "5")
    assert len(project.experiments()) == 5


def test_full_remote(shared: Shared, tmp_path: Path) -> None:
    """A full remote is told with its cause and place; when it has room, no stage runs again."""
    project = writing(tmp_path, shared)
    with small_disk(tmp_path / "files", "2m") as disk, patch("dvc_mlflow.sweep.driver._TRIES", 1):
        said = project.sweep("-S", "x=1", check=False)
        full = rf"^failed: sweep-\w+ \(x=1\): .*DVC remote 'files' \({disk}\): No space left on"
        assert re.search(full, said, re.M), said
        assert project.experiments() == []
        n = len((tmp_path / "ran").read_text())
        subprocess.run(["mount", "-o", "remount,size=20m", disk], check=True)
        assert "1 done, 0 failed" in project.sweep("-S", "x=1")
    assert n <= 2  # the nodes share no cache
    assert len((tmp_path / "ran").read_text()) == n


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
    shutil.rmtree(shared.folder / "node-0" / tmp_path.name, ignore_errors=True)
    shutil.rmtree(shared.folder / "node-1" / tmp_path.name, ignore_errors=True)
    said = project.sweep("-S", "x=1,2")
    assert re.search(" 0 found, 2 new$", said, re.M)
    check(project, said, 2, 2)
    assert (tmp_path / "ran").read_text() == "..."
    assert re.search(" 2 found, 0 new$", project.sweep("-S", "x=1,2"), re.M)


def test_inputs_and_submodules(shared: Shared, tmp_path: Path) -> None:
    """Inputs in the DVC remote, and those of a submodule, are there in a trial."""
    own = stage("exec python score.py a.json ${x} 0", "a", "x")
    own["deps"] += ["raw", "theirs/rows.csv"]
    project = small(tmp_path, {"dvc.yaml": {"stages": {"a": own}}, "raw/a.csv": "1"}, shared)
    other = Clone(tmp_path / "other")
    other.path.mkdir()
    other.git("init", "-q")
    (other.path / "rows.csv").write_text("3")
    other.commit()
    allow = ("-c", "protocol.file.allow=always")
    project.git(*allow, "submodule", "add", "-q", f"{other.path}", "theirs")
    project.git("rm", "-q", "-r", "--cached", "raw")
    project.dvc("add", "raw")
    project.commit()
    project.git("push", "-q", "origin", "main")
    said = project.sweep("-S", "x=1", check=False)
    assert re.search(r"^sweep-\w+ \(x=1\) failed on \S+ in [\d.]+ s: .*raw", said, re.M)
    project.dvc("push")
    assert "1 done, 0 failed" in project.sweep("-S", "x=1", "--metric=-a/score")


def test_hanging_trial(shared: Shared, tmp_path: Path) -> None:
    """A trial that hangs is ended with its processes after the timeout, and has no row."""
    project = small(tmp_path, HANGING, shared)
    said = project.sweep("-S", "x=1", "--timeout", "6", check=False)
    assert re.search(r"^sweep-\S+ \(x=1\) failed on .*: ended after 6 s \(--timeout\)", said, re.M)
    assert project.stages() == []
    assert project.rows() == []


def test_no_such_metric(shared: Shared, tmp_path: Path) -> None:
    """A metric that no stage has is refused at the first result, and that is kept."""
    project = small(tmp_path, on=shared)
    said = project.sweep("-S", "x=1", "--metric=a/other", check=False)
    line = "dvc-mlflow: --metric: must be one of a/score; received 'a/other'"
    assert said.splitlines()[-1] == line
    again = project.sweep("-S", "x=1", "--metric=a/other", check=False)
    assert again.splitlines() == [line]


def test_two_drivers(shared: Shared, tmp_path: Path) -> None:
    """If two sweeps run the same trial at the same time, the first result stands, in one row."""
    (begun := tmp_path / "begun").mkdir()
    project = small(tmp_path, {"score.py": TOGETHER.format(folder=begun) + SCORE}, shared)
    both = [project.start("-S", "x=1") for _ in range(2)]
    said = [process.communicate()[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert all("1 done, 0 failed" in each for each in said)
    assert len(project.experiments()) == 1
    assert [row.info.status for row in project.rows()] == ["FINISHED"]
