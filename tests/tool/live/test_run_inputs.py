"""A stage whose inputs change while it runs fails, and names what has changed."""

import time
from pathlib import Path

import pytest

from support.live_runs import last, one, reproducing, wait
from support.pipelines import repository

pytestmark = [
    pytest.mark.pipeline,
    pytest.mark.versions,
    pytest.mark.rest,
    pytest.mark.filterwarnings("ignore"),  # warnings from MLflow
]


@pytest.mark.parametrize("when", ["early", "late"])
@pytest.mark.parametrize("what", ["dep", "param", "touch", "other"])
def test_input_changes(tmp_path: Path, what: str, when: str) -> None:
    """A stage fails if an input's content changes while it runs, but not after a mere `touch`."""
    sleep = "2" if when == "early" else "8"
    script = f"touch started; sleep {sleep}; echo 1 > out.txt"
    project = repository(
        tmp_path / "project",
        one("sh script", deps=["script", "raw.txt"], outs=["out.txt"]),
        files={"script": script, "other.txt": "1\n"},
    )
    project.dvc("repro", "-q")
    rows = len(project.rows())
    (project.path / "started").unlink()
    project.set({"rate": 2})
    with reproducing(project) as dvc:
        wait((project.path / "started").exists, 60)
        if when == "late":
            time.sleep(5)
        if what == "param":
            project.set({"rate": 3, "a": 9})
        elif what == "touch":
            (project.path / "raw.txt").touch()
            project.set({"a": 9})
        else:
            project.write({{"dep": "raw.txt", "other": "other.txt"}[what]: "other\n"})
        out, _ = dvc.communicate(timeout=60)
    if what in ("dep", "param"):
        name = {"dep": "raw.txt", "param": "params.yaml"}[what]
        assert dvc.returncode != 0
        assert f"dvc-mlflow: {name} changed while the stage ran; run `dvc repro` again" in out
        assert last(project).info.status == "FAILED"
    else:
        assert dvc.returncode == 0, out
        assert last(project).info.status == "FINISHED"
    assert len(project.rows()) == rows + 1


def test_input_changes_while_the_store_is_away(tmp_path: Path) -> None:
    """A changed input fails its stage even if MLflow does not answer."""
    script = "touch started; sleep 6; echo 1 > out.txt"
    project = repository(
        tmp_path / "project",
        one("sh script", deps=["script", "raw.txt"], outs=["out.txt"]),
        files={"script": script},
    )
    with reproducing(project, MLFLOW_TRACKING_URI="http://127.0.0.1:9") as dvc:
        wait((project.path / "started").exists, 60)
        time.sleep(4)
        project.write({"raw.txt": "other\n"})
        out, _ = dvc.communicate(timeout=60)
    assert dvc.returncode != 0
    assert "raw.txt changed while the stage ran; run `dvc repro` again" in out
