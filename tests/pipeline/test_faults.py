"""Kills, Ctrl-C and damaged files: no result is lost, and none is wrong."""

import os
import signal
from pathlib import Path

import pytest

from dvc_mlflow.pipeline.tags import LOCK
from support.clone import SCRIPTS, STORES, Clone, contents
from support.following import following, started, statuses
from support.kills import Ledger, draw
from support.pipelines import Repository, last
from support.processes import wait

pytestmark = [
    pytest.mark.pipeline,
    pytest.mark.filterwarnings("ignore"),  # MLflow's client warns in the test process
]


@pytest.fixture
def project(reproduced: Clone, tmp_path: Path) -> Repository:
    """A copy of a clone in which the pipeline has run, without its store."""
    return Repository(reproduced.copy(tmp_path / "project").path)


@pytest.mark.rest(minutes=3)
def test_stopped_training(project: Repository) -> None:
    """Ctrl-C ends a training within seconds: its row is FAILED and has the curves so far.

    README's commands bring back the result of the last commit, whatever dvc.lock has by then.
    """
    before = contents(project.path / "data")
    for name in ("training.csv", "model.keras"):
        (project.path / "data" / name).write_text("Another result")
    project.dvc("commit", "-q", "-f", "train")
    assert contents(project.path / "data") != before
    lock = project.lock
    Clone(project.path).set({"train.epochs": 100_000})
    with following(project), started(project, "dvc", "repro") as dvc:
        wait(lambda: statuses(project)[-1:] == ["RUNNING"], 120)
        wait(lambda: "train/loss" in last(project).data.metrics, 120)
        os.killpg(dvc.pid, signal.SIGINT)
        assert dvc.wait(180)
        wait(lambda: last(project).info.status != "RUNNING", 120)
    assert project.lock == lock
    row = last(project)
    assert row.info.status == "FAILED"
    assert "train/val_accuracy" in row.data.metrics
    assert not any(key.startswith(LOCK) for key in row.data.tags)
    project.run("sh", "-c", "git checkout params.yaml dvc.lock data && dvc checkout")
    assert contents(project.path / "data") == before
    assert project.dvc("status").stdout == "Data and pipelines are up to date.\n"


def test_script_refuses_damaged_file(project: Repository) -> None:
    """Given damaged data, a script prints one line, exits with status 1 and changes nothing.

    It does so before it loads Keras.
    """
    trap = project.path.parent / "trap"
    trap.mkdir()
    (trap / "keras.py").write_text("raise SystemExit('Keras is loaded')")
    for path, script in [("data/train.npz", "train.py"), ("data/test.npz", "evaluate.py")]:
        whole = (project.path / path).read_bytes()
        (project.path / path).write_bytes(whole[:-100])
        before = contents(project.path, *STORES)
        done = project.run("python", f"stages/{script}", check=False, PYTHONPATH=f"{trap}")
        assert (done.returncode, done.stdout) == (1, ""), path
        assert done.stderr.startswith(f"{path}: cannot be read (File is not a zip file); ")
        assert done.stderr.endswith(" make it again\n")
        assert done.stderr.count("\n") == 1
        assert contents(project.path, *STORES) == before
        (project.path / path).write_bytes(whole)


@pytest.mark.rest
def test_kills(clone: Clone, slow: bool) -> None:
    """Whatever is killed at whatever moment, the next `make repro` ends like an undisturbed one.

    Outputs and dvc.lock are the same, MLflow has the result once, and no row stays RUNNING: see
    tests/support/kills.py. Every other kill is aimed at DVC's own writes. The scripts are others,
    without TensorFlow, but for the two hundred kills of `--slow`.
    """
    if not slow:
        for path, text in SCRIPTS.items():
            (clone.path / path).write_text(text)
        clone.commit("Other scripts")
    ledger = Ledger(clone)
    for kill in draw(200, seed=0) if slow else draw(2, seed=304):
        ledger.survive(kill)
