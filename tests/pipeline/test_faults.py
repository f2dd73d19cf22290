"""Edits, Ctrl-C and damaged files: DVC never takes a wrong result for a right one."""

import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from support.clone import Clone
from support.live_runs import last, reproducing, wait
from support.pipelines import Repository
from support.restoring import contents

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
    with reproducing(project) as dvc:
        wait(lambda: curve.exists() and curve.read_text().count("\n") > 10, 120)
        yield dvc


def test_edits_in_mid_run(project: Repository) -> None:
    """If params, code or data are edited while a stage runs, it fails and dvc.lock stays as it was.

    DVC alone would record the edited files next to a model that they did not make.
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
        out, _ = dvc.communicate(timeout=120)
    assert dvc.returncode
    (named,) = re.findall(
        "dvc-mlflow: (.*) changed while the stage ran; run `dvc repro` again", out
    )
    assert {*named.split(", ")} == {
        "data/train.npz",
        "params.yaml",
        "stages/vanilla_lstm/learning",
    }
    assert "Traceback" not in out
    assert project.lock == lock
    assert last(project).info.status == "FAILED"
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
        dvc.communicate(timeout=60)
        assert time.monotonic() - began < 60
    assert dvc.returncode
    assert project.lock == lock
    (row,) = project.rows()
    assert row.info.status == "KILLED"
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
