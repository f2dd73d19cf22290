"""A stage with a list of commands is one stage for `dvc-mlflow dvc`, with one row."""

import signal
from pathlib import Path
from typing import Any

import psutil
import pytest

from support.fronts import front, started, unheard
from support.live_runs import last, recorders, wait
from support.pipelines import Repository

pytestmark = [
    pytest.mark.pipeline,
    pytest.mark.versions,
    pytest.mark.filterwarnings("ignore"),  # warnings from MLflow
]

ADD = "echo 1 >> seen"
SCORE = """echo "{\\"n\\": $(wc -l < seen)}" > m.json"""


def project(path: Path, cmd: Any, **more: Any) -> Repository:
    """Make a pipeline of one stage with these commands."""
    stage = {"cmd": cmd, "metrics": [{"m.json": {"cache": False}}], "params": ["rate"], **more}
    return unheard(path / "project", {"one": stage})


@pytest.mark.parametrize(
    "cmd", [[ADD, SCORE, ADD], f"{ADD}\n{SCORE}\n{ADD}\n"], ids=["list", "lines"]
)
def test_one_row(tmp_path: Path, cmd: Any) -> None:
    """The row begins with the first command, is complete after the last, and is said once."""
    made = project(tmp_path, cmd)
    done = front(made, "repro")
    assert done.stderr.count("row '") == 1
    (row,) = made.rows()
    assert row.info.status == "FINISHED"
    assert row.data.metrics == {"one/n": 1}
    assert (made.path / "seen").read_text() == "1\n1\n"


@pytest.mark.rest
def test_one_failure(tmp_path: Path) -> None:
    """A command that fails makes the row FAILED; the commands after it do not run."""
    made = project(tmp_path, [ADD, "echo no >&2; exit 3", SCORE])
    done = front(made, "repro", check=False)
    assert done.returncode == 255
    assert last(made).info.status == "FAILED"
    assert last(made).data.tags["mlflow.note.content"].startswith("**FAILED**: exit status 3: `no`")
    assert (made.path / "seen").read_text() == "1\n"
    made.write({"dvc.yaml": (made.path / "dvc.yaml").read_text().replace("exit 3", "exit 0")})
    made.write({"seen": ""})
    front(made, "repro")
    assert [row.info.status for row in made.rows()] == ["FAILED", "FINISHED"]


@pytest.mark.rest
def test_plain_mlflow(tmp_path: Path) -> None:
    """The first MLflow run that any of the commands opens becomes the row."""
    script = (
        "import mlflow, sys\nwith mlflow.start_run():\n    mlflow.log_param('own', sys.argv[1])\n"
    )
    commands = ["python script.py 1", "python script.py 2", "echo '{\"n\": 1}' > m.json"]
    stage = {"cmd": commands, "metrics": [{"m.json": {"cache": False}}], "params": ["rate"]}
    made = unheard(tmp_path / "project", {"one": stage}, files={"script.py": script})
    front(made, "repro")
    first, second = made.rows()
    assert first.data.params == {"own": "1", "rate": "1"}
    assert first.data.metrics == {"one/n": 1}
    assert second.data.params == {"own": "2"}
    assert second.data.tags["mlflow.parentRunId"] == first.info.run_id


@pytest.mark.rest
def test_dvc_ends_between(tmp_path: Path) -> None:
    """If `dvc` ends between two commands, the row is KILLED."""
    stop = "cut -d' ' -f4 /proc/$PPID/stat > dvc; kill -STOP $(cat dvc)"
    made = project(tmp_path, [f"{ADD}; {stop}", SCORE])
    with started(made, "repro") as process:
        wait(lambda: (made.path / "dvc").exists() and (made.path / "dvc").read_text())
        dvc = psutil.Process(int((made.path / "dvc").read_text()))
        wait(lambda: [child.status() for child in dvc.children()] == ["zombie"])
        dvc.kill()
        assert process.wait(60) == -signal.SIGKILL
    wait(lambda: not recorders(made))
    assert [row.info.status for row in made.rows()] == ["KILLED"]
    assert not (made.path / "m.json").exists()
