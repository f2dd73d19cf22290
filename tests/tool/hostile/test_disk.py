"""Disks that are full, or that nothing may be written to: the stage ends as plain `dvc` ends it."""

from pathlib import Path

import pytest

from support.disks import mounted, small_disk
from support.pipelines import makes, repository
from support.twins import said

pytestmark = [
    pytest.mark.rest,
    pytest.mark.pipeline,
    pytest.mark.filterwarnings("ignore"),  # warnings from MLflow
]

STAGES = {"one": makes({"m.json": '{"n": 1}'}, deps=["raw.txt"], metrics=["m.json"])}


def test_small_files(tmp_path: Path) -> None:
    """Where no file may grow beyond 500 KB, there is no store, one line, and the same result."""
    project = repository(tmp_path / "ours", STAGES)
    project.remove_store()
    twin = project.copy(tmp_path / "twin")
    limit = ["bash", "-c", 'ulimit -f 500; exec "$@"', "bash"]
    # In which order DVC says `git add dvc.lock .gitignore` is otherwise random.
    done = project.run(*limit, "dvc-mlflow", "run", "dvc", "repro", PYTHONHASHSEED="0")
    plain = twin.run(*limit, "dvc", "repro", PYTHONHASHSEED="0")
    assert (done.stdout, said(done)) == (plain.stdout, plain.stderr)
    assert project.lock == twin.lock
    assert "dvc-mlflow: MLflow at " in done.stderr
    assert project.rows() == []
    assert project.record().out.startswith("ours: added")


def test_read_only_tmp(tmp_path: Path) -> None:
    """Where `.dvc/tmp` cannot be written to, `dvc` says what it says without the tool."""
    project = repository(tmp_path / "project", STAGES)
    own = project.path / ".dvc/tmp"
    own.mkdir(exist_ok=True)
    with mounted(own, "-o", "bind,ro", own):
        done = project.run("dvc-mlflow", "run", "dvc", "repro", check=False)
        plain = project.run("dvc", "repro", check=False)
    assert (done.returncode, done.stdout) == (plain.returncode, plain.stdout)
    assert plain.returncode == 255
    assert said(done) == plain.stderr


def test_full_disk(tmp_path: Path) -> None:
    """The store's disk fills while a stage runs: that costs a line, and `record` adds the row."""
    fill = "while ! test -e small/mlflow.db; do sleep 0.1; done; cat /dev/zero > small/fill"
    stage = {**STAGES["one"], "cmd": f"{fill}; {STAGES['one']['cmd']}"}
    project = repository(tmp_path / "project", {"one": stage})
    with small_disk(project.path / "small", "2m") as disk:
        address = f"sqlite:///{disk}/mlflow.db"
        done = project.run("dvc-mlflow", "run", "dvc", "repro", MLFLOW_TRACKING_URI=address)
        assert done.returncode == 0
        (disk / "fill").unlink()
        done = project.run("dvc-mlflow", "record", MLFLOW_TRACKING_URI=address)
        # By `record`, or by the follower before it.
        added = ("project: added ", "project: row ", "nothing to do: MLflow has this result: row ")
        assert sum(line.startswith(added) for line in done.stdout.splitlines()) == 1, done.stdout
