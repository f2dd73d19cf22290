"""The follower that `dvc-mlflow run` starts: in nobody's way, and gone soon after its `dvc`."""

import os
import shlex
import subprocess
from pathlib import Path

import psutil
import pytest

from support.clone import environment
from support.following import statuses
from support.pipelines import Repository, last, repository, train
from support.processes import followers, wait

pytestmark = pytest.mark.pipeline

PREFIX = "exec dvc-mlflow run sh -c"
RUN = ("dvc-mlflow", "run", "dvc", "repro", "-q")


def only_follower(project: Repository) -> psutil.Process:
    """Return the follower; for a moment, what it starts is called as it is."""
    (follower,) = wait(lambda: len(each := followers(project.path)) == 1 and each)
    assert isinstance(follower, psutil.Process)
    return follower


def opened(pid: int) -> set[Path]:
    """Return what the standard streams of a process are."""
    return {Path(f"/proc/{pid}/fd/{n}").resolve() for n in (0, 1, 2)}


def test_one_follower(tmp_path: Path) -> None:
    """It has a session of its own, holds nobody's descriptor, and ends by itself.

    Several commands at once, also in stages and without a store, have one; after `record`, each
    ended stage has its whole row, and it prints the rows.
    """
    stages = {
        name: {"cmd": f"{PREFIX} 'sleep 1; echo 1 > {name}'", "deps": ["raw.txt"], "outs": [name]}
        for name in ("x", "y")
    }
    fit = train("raw.txt")
    stages["train"] = {**fit, "cmd": f"{PREFIX} {shlex.quote(fit['cmd'])}"}
    project = repository(tmp_path / "project", stages)
    project.remove_store()
    log = project.path / ".git/dvc-mlflow/follow.log"
    running = [
        subprocess.Popen([*RUN, name], cwd=project.path, env=environment()) for name in ("x", "y")
    ]
    assert [each.wait(120) for each in running] == [0, 0]
    assert project.record().status == 0
    assert statuses(project) == ["FINISHED"] * 2
    with subprocess.Popen(
        ["sh", "-c", "dvc-mlflow run dvc repro train 2>&1 | cat"],
        cwd=project.path,
        env=environment(DVC_STAGE=""),
        stdout=subprocess.PIPE,
        text=True,
    ) as shell:
        said, _ = shell.communicate(timeout=300)  # else the pipe would wait for the follower
    assert "Running stage 'train'" in said
    follower = only_follower(project)
    assert os.getsid(follower.pid) != os.getsid(0)
    assert follower.ppid() != shell.pid
    assert opened(follower.pid) == {Path("/dev/null"), log}
    assert Path(follower.cwd()) == project.path
    for number in (3, 4):
        line, row = project.record(), last(project)
        assert statuses(project) == ["FINISHED"] * number
        assert row.data.metrics == {"train/loss": 0.25}
        # The follower can have told it apart from others since.
        assert row.info.run_name.partition(" | ")[0] in line.out
        if number == 3:
            project.set({"rate": 2})
            project.run(*RUN, "train")
    assert project.rows(deleted=True) == []
    psutil.wait_procs([follower], 60)
    assert not follower.is_running()
    assert "Traceback" not in log.read_text()


def test_store_is_away(tmp_path: Path) -> None:
    """A server that is away costs no stage anything, and `record` says what is wrong."""
    project = repository(tmp_path / "project", {"train": train("raw.txt")})
    away = "http://127.0.0.1:9"
    assert project.run(*RUN, MLFLOW_TRACKING_URI=away).stderr == ""
    said = project.tool("record", MLFLOW_TRACKING_URI=away)
    assert said.status == 1
    assert "MLflow at http://127.0.0.1:9" in said.error
    assert project.record().status == 0
    assert statuses(project) == ["FINISHED"]
