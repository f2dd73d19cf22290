"""Edits, Ctrl-C and damaged files: DVC never takes a wrong result for a right one."""

import os
import signal
from pathlib import Path

import pytest

from support.clone import Clone
from support.following import following, started, statuses
from support.light_stages import SCRIPTS
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


TRAIN = "stages/train.py"
GATE = """
while not Path("go").exists():
    time.sleep(0.1)
"""


def test_edits_in_mid_run(project: Repository) -> None:
    """If data is edited while a stage runs, dvc.lock contradicts itself, and the row is FAILED.

    A line says which file it is. The stages' scripts are others, without TensorFlow.
    """
    project.write({**SCRIPTS, TRAIN: SCRIPTS[TRAIN] + GATE, "go": "", ".git/info/exclude": "/go"})
    with following(project):  # so the stages start no follower of their own
        project.dvc("repro")
        assert project.record().status == 0
    project.commit("The results of other scripts")
    lock, model = project.lock, (project.path / "data/model.keras").read_bytes()
    (project.path / "go").unlink()
    Clone(project.path).set({"train.epochs": 1})
    with following(project), started(project, "dvc", "repro") as dvc:
        wait(lambda: statuses(project)[-1:] == ["RUNNING"], 60)
        wait(lambda: "train.epochs" in last(project).data.params)
        for path, old, new in [
            ("params.yaml", "units: 4", "units: 5"),
            ("stages/vanilla_lstm/learning/training.py", "PATIENCE = 2", "PATIENCE = 3"),
            ("data/train.npz", "n_steps", "n_stops"),
        ]:
            text = (project.path / path).read_text()
            assert old in text
            project.write({path: text.replace(old, new)})
        project.write({"go": ""})
        assert dvc.wait(120) == 0
        wait(lambda: last(project).info.status == "FAILED")
    assert (project.path / "data/model.keras").read_bytes() != model
    said = project.record()
    assert "stage train is not recorded: it has read a different data/train.npz" in said.error
    assert not any(key.startswith("dvc-mlflow.lock.train") for key in last(project).data.tags)
    project.git("checkout", ".")
    project.dvc("checkout", "-f")
    assert "up to date" in project.dvc("repro").stdout
    assert project.lock == lock
    assert (project.path / "data/model.keras").read_bytes() == model


@pytest.mark.rest
def test_stopped_training(project: Repository) -> None:
    """Ctrl-C ends a training within seconds: its row is FAILED and has the curves so far.

    README's commands bring back the result of the last commit, whatever dvc.lock has by then.
    """
    before = contents(project.path / "data")
    Clone(project.path).set({"train.epochs": 4})
    project.dvc("repro", "-q")
    assert contents(project.path / "data") != before
    lock = project.lock
    Clone(project.path).set({"train.epochs": 100_000})
    with following(project), started(project, "dvc", "repro") as dvc:
        wait(lambda: statuses(project)[-1:] == ["RUNNING"], 120)
        wait(lambda: "train/loss" in last(project).data.metrics, 60)
        os.killpg(dvc.pid, signal.SIGINT)
        assert dvc.wait(60)
        wait(lambda: last(project).info.status != "RUNNING")
    assert project.lock == lock
    row = last(project)
    assert row.info.status == "FAILED"
    assert "train/val_accuracy" in row.data.metrics
    assert not any(key.startswith("dvc-mlflow.lock.") for key in row.data.tags)
    project.run("sh", "-c", "git checkout params.yaml dvc.lock data && dvc checkout")
    assert contents(project.path / "data") == before
    assert project.dvc("status").stdout == "Data and pipelines are up to date.\n"


def test_script_refuses_damaged_file(project: Repository) -> None:
    """Given a damaged file, a script prints one line, exits with status 1 and changes nothing.

    For damaged data, it does so before it loads Keras.
    """
    trap = project.path.parent / "trap"
    trap.mkdir()
    (trap / "keras.py").write_text("raise SystemExit('Keras is loaded')")
    for path, script in [
        ("data/train.npz", "train.py"),
        ("data/test.npz", "evaluate.py"),
        ("data/model.keras", "evaluate.py"),
    ]:
        whole = (project.path / path).read_bytes()
        (project.path / path).write_bytes(whole[:-100])
        before = contents(project.path)
        if path == "data/model.keras":
            (trap / "keras.py").unlink()
        done = project.run("python", f"stages/{script}", check=False, PYTHONPATH=f"{trap}")
        assert (done.returncode, done.stdout) == (1, ""), path
        assert done.stderr.startswith(f"{path}: cannot be read (File is not a zip file); ")
        assert done.stderr.endswith(" make it again\n")
        assert done.stderr.count("\n") == 1
        assert contents(project.path) == before
        (project.path / path).write_bytes(whole)
