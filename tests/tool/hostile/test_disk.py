"""Disks that are full, or that nothing may be written to: the stage ends as plain `dvc` ends it."""

import subprocess
from pathlib import Path

import pytest

from support.clone import Done
from support.fronts import said
from support.pipelines import Repository, makes, repository

pytestmark = [
    pytest.mark.rest,
    pytest.mark.pipeline,
    pytest.mark.filterwarnings("ignore"),  # warnings from MLflow
]

STAGES = {"one": makes({"m.json": '{"n": 1}'}, deps=["raw.txt"], metrics=["m.json"])}


def with_mounts(project: Repository, script: str, **more: str) -> Done:
    """Run a script that calls the tool, whose mounts end with it."""
    command = ["unshare", "--mount", "sh", "-c", script]
    return project.run(*command, check=False, **more)


@pytest.fixture
def needs_mounts() -> None:
    """Skip a test where nothing can be mounted."""
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True, check=False).returncode:
        pytest.skip("needs root, and mounts of its own")


def test_small_files(tmp_path: Path) -> None:
    """Where no file may grow beyond 500 KB, there is no store, one line, and the same result."""
    project = repository(tmp_path / "ours", STAGES)
    project.remove_store()
    twin = project.copy(tmp_path / "twin")
    limit = ["bash", "-c", 'ulimit -f 500; exec "$@"', "bash"]
    # In which order DVC says `git add dvc.lock .gitignore` is otherwise random.
    done = project.run(*limit, "dvc-mlflow", "dvc", "repro", PYTHONHASHSEED="0")
    plain = twin.run(*limit, "dvc", "repro", PYTHONHASHSEED="0")
    assert (done.stdout, said(done)) == (plain.stdout, plain.stderr)
    assert project.lock == twin.lock
    assert "the stage is not recorded: MLflow at" in done.stderr
    assert project.rows() == []
    assert project.record().out.startswith("ours: added")


@pytest.mark.usefixtures("needs_mounts")
def test_read_only_tmp(tmp_path: Path) -> None:
    """Where `.dvc/tmp` cannot be written to, `dvc` says what it says without the tool."""
    project = repository(tmp_path / "project", STAGES)
    (project.path / ".dvc/tmp").mkdir(exist_ok=True)
    script = "mount --bind .dvc/tmp .dvc/tmp; mount -o remount,bind,ro .dvc/tmp; exec"
    done = with_mounts(project, f"{script} dvc-mlflow dvc repro")
    plain = with_mounts(project, f"{script} dvc repro")
    assert (done.returncode, done.stdout) == (plain.returncode, plain.stdout)
    assert plain.returncode == 255
    assert said(done) == plain.stderr


@pytest.mark.usefixtures("needs_mounts")
def test_full_disk(tmp_path: Path) -> None:
    """The store's disk fills while a stage runs: that costs a line, and `record` adds the row."""
    fill = "while ! test -e small/mlflow.db; do sleep 0.1; done; cat /dev/zero > small/fill"
    stage = {**STAGES["one"], "cmd": f"{fill}; {STAGES['one']['cmd']}"}
    project = repository(tmp_path / "project", {"one": stage})
    (project.path / "small").mkdir()
    address = f"sqlite:///{project.path}/small/mlflow.db"
    steps = ["dvc-mlflow dvc repro", "rm small/fill", "dvc-mlflow record"]
    script = f"mount -t tmpfs -o size=2m none small && {' && '.join(steps)}"
    done = with_mounts(project, script, MLFLOW_TRACKING_URI=address)
    assert done.returncode == 0, done.stderr
    assert "database or disk is full; make room on its disk" in done.stderr
    assert "added" in done.stdout or "completed" in done.stdout
