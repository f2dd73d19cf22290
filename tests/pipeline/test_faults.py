"""Edits, Ctrl-C and damaged files: DVC never takes a wrong result for a right one."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from support.clone import Clone
from support.following import following, started
from support.pipelines import Repository, last
from support.restoring import contents
from support.waiting import wait

pytestmark = [
    pytest.mark.pipeline,
    pytest.mark.filterwarnings("ignore"),  # MLflow's client warns in the test process
]


@pytest.fixture
def project(reproduced: Clone, tmp_path: Path) -> Repository:
    """A copy of a clone in which the pipeline has run, without its store."""
    return Repository(reproduced.copy(tmp_path / "project").path)


@contextmanager
def training(project: Repository, epochs: int) -> Iterator[subprocess.Popen[str]]:
    """Run `dvc repro` with this many epochs; the block starts once ten of them have ended."""
    curve = project.path / "data/training.csv"  # the earlier result has three epochs
    Clone(project.path).set({"train.epochs": epochs})
    with following(project):
        project.record()  # the follower has nothing else to do then
        with started(project, "dvc", "repro") as dvc:
            wait(lambda: curve.exists() and curve.read_text().count("\n") > 10, 120)
            wait(lambda: "RUNNING" in {row.info.status for row in project.rows()})
            yield dvc


def test_edits_in_mid_run(project: Repository) -> None:
    """If params, code or data are edited while a stage runs, its row is FAILED, and says which.

    dvc.lock has the edited files next to a model that they did not make, so the result has no row.
    """
    lock, model = project.lock, (project.path / "data/model.keras").read_bytes()
    with training(project, 3000) as dvc:
        for path, old, new in [
            ("params.yaml", b"units: 4", b"units: 5"),
            ("stages/vanilla_lstm/learning/training.py", b"PATIENCE = 2", b"PATIENCE = 3"),
            ("data/train.npz", b"x.npy", b"z.npy"),
        ]:
            content = (project.path / path).read_bytes()
            assert old in content
            (project.path / path).write_bytes(content.replace(old, new))
        assert dvc.wait(120) == 0
        wait(lambda: last(project).info.status == "FAILED")
    assert (project.path / "data/model.keras").read_bytes() != model
    said = project.record()
    assert said.status == 1
    for path in ("data/train.npz", "params.yaml", "stages/vanilla_lstm/learning"):
        assert path in said.error
    assert "`dvc-mlflow run dvc repro -f train` makes it again" in said.error
    assert not any(key.startswith("dvc-mlflow.lock.train") for key in last(project).data.tags)
    project.git("checkout", ".")
    project.dvc("checkout", "-f")
    assert project.repro() == []
    assert project.lock == lock
    assert (project.path / "data/model.keras").read_bytes() == model


def test_stopped_training(project: Repository) -> None:
    """Ctrl-C ends a training within seconds: its row is KILLED and has the curves so far.

    README's commands bring back the results that DVC deleted before the training.
    """
    lock, before = project.lock, contents(project.path / "data")
    with training(project, 100_000) as dvc:
        wait(lambda: project.rows() and "train/loss" in last(project).data.metrics)
        began = time.monotonic()
        os.killpg(dvc.pid, signal.SIGINT)
        assert dvc.wait(60)
        assert time.monotonic() - began < 60
        wait(lambda: project.rows()[-1].info.status != "RUNNING")
    assert project.lock == lock
    row = last(project)
    assert row.info.status == "FAILED"
    assert "train/val_accuracy" in row.data.metrics
    assert not any(key.startswith("dvc-mlflow.lock.") for key in row.data.tags)
    project.run("sh", "-c", "dvc checkout && git checkout data")
    assert contents(project.path / "data") == before


@pytest.mark.parametrize(
    ("path", "script", "loads"),
    [
        ("data/train.npz", "train.py", False),
        ("data/test.npz", "evaluate.py", False),
        ("data/model.keras", "evaluate.py", True),
    ],
)
def test_script_refuses_damaged_file(
    project: Repository, path: str, script: str, loads: bool
) -> None:
    """Given a damaged file, a script prints one line, exits with status 1 and changes nothing.

    For damaged data, it does so before it loads Keras.
    """
    whole = (project.path / path).read_bytes()
    (project.path / path).write_bytes(whole[:-100])
    trap = project.path.parent / "trap"
    trap.mkdir()
    if not loads:
        (trap / "keras.py").write_text("raise SystemExit('Keras is loaded')")
    before = contents(project.path)
    done = project.run("python", f"stages/{script}", check=False, PYTHONPATH=f"{trap}")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"{path}: cannot be read (File is not a zip file); ")
    assert done.stderr.endswith(" make it again\n")
    assert done.stderr.count("\n") == 1
    assert contents(project.path) == before
