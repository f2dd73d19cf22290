"""A sweep on this machine, with its own Ray, leaves complete experiments and rows."""

import re
import shutil
import signal
from importlib.util import find_spec
from pathlib import Path

import psutil
import pytest
from mlflow import MlflowClient
from mlflow.artifacts import load_text
from mlflow.tracking._tracking_service import utils

from dvc_mlflow import processes
from dvc_mlflow.pipeline.tags import EXPERIMENT, FOLDER
from support.projects import HANGING, SCORE, Project, small, stage, values, wait_until

pytestmark = [
    pytest.mark.pipeline,
    pytest.mark.cluster,
    pytest.mark.skipif(not find_spec("ray"), reason="needs Ray (make cluster-setup)"),
]

OWN = """
if x < 2 and not os.path.exists("{0}/once"):
    os.mkdir("{0}/once")
    os.kill(os.getpid(), signal.SIGKILL)
if x > 1:
    import mlflow
    mlflow.set_experiment("theirs")
    with mlflow.start_run():
        mlflow.log_param("own", x)
        mlflow.log_text(f"{{x}}", "notes/own.txt")
if x > 2:
    sys.exit("too large")
"""


@pytest.mark.versions
def test_failing_trials(tmp_path: Path) -> None:
    """A DVC project in a folder is swept from there; what is printed at the end works there.

    A failed trial is told with params, cause and log; the others run. If a signal has ended its
    stage, as when the node's memory is used up, a trial is tried again. What scripts log to
    experiments of their own is beside the store, in no clone that goes. A metric that no stage has
    is refused.
    """
    own = stage("exec python score.py a.json ${x} 0", "a", "x")
    script = f"import os, signal\n{SCORE}{OWN.format(tmp_path)}"
    files = {"dvc.yaml": {"stages": {"a": own}}, "score.py": script, "params.yaml": {"x": 0}}
    project = Project(tmp_path, files, "models/roses")
    said = project.sweep("-S", "x=1,2,3", "--metric=-a/score", check=False)
    assert "2 done, 1 failed" in said
    assert "each time" not in said
    assert "Traceback" not in said
    assert (tmp_path / "once").exists()
    line = r"sweep-\w+ \(x=3\) failed on \S+ in .* s: .*too large; failed to reproduce 'a': "
    ((log,),) = [re.findall(rf"^{line}.* \(its log: (\S+)\)$", said, re.M)]
    assert "too large" in Path(log).read_text()
    assert len(re.findall(r"^failed: sweep-\w+ \(x=3\): .*too large", said, re.M)) == 1
    refused = project.sweep("-S", "x=1,2", "--metric=a/other", check=False)
    assert refused == "dvc-mlflow: --metric: must be one of a/score; received 'a/other'\n"

    shutil.rmtree(project.clones)
    rows = [row for row in project.rows() if FOLDER in row.data.tags]
    assert values(rows, "x") == [("1",), ("2",)]
    client = MlflowClient(f"sqlite:///{project.path}/mlflow.db")
    experiment = client.get_experiment(rows[0].info.experiment_id)
    assert experiment.name == "flowers/models/roses"
    title, (best,) = said.partition(":")[0], re.findall("^The best: 0 .*: (.*)$", said, re.M)
    assert f"runs?viewStateShareKey={title}&" in said
    assert "restored, with the md5s" in project.run(*best.split()).stdout
    shown = project.dvc("exp", "show").stdout
    assert all(row.data.tags[EXPERIMENT] in shown for row in rows)
    theirs = [row for row in project.rows() if "own" in row.data.params]
    assert values(theirs, "own") == [("2.0",), ("3.0",)]
    if hasattr(utils, "_SERVER_ARTIFACT_ROOT_ENV_VAR"):  # MLflow 3.5 keeps them in the clone
        notes = [load_text(f"{row.info.artifact_uri}/notes/own.txt") for row in theirs]
        assert notes == [row.data.params["own"] for row in theirs]


def test_interrupted(tmp_path: Path) -> None:
    """A local sweep listens on this machine only; SIGTERM ends it, and all its stages."""
    project = small(tmp_path, HANGING)
    process = project.start("-S", "x=1,2", HOME=f"{tmp_path}")
    wait_until(lambda: [*Path(project.clones).glob("*/*/clone/a.json")], process)
    children = psutil.Process(process.pid).children(recursive=True)
    marks = {processes.process(child.pid) for child in children}
    pids = {process.pid, *(child.pid for child in children)}
    listening = [c for c in psutil.net_connections("tcp") if c.status == "LISTEN" and c.pid in pids]
    assert len(listening) > 3
    assert {c.laddr.ip.removeprefix("::ffff:") for c in listening} == {"127.0.0.1"}
    assert not (tmp_path / ".ray/auth_token").exists()
    process.send_signal(signal.SIGTERM)
    said = process.said()
    assert process.poll() == 130, said
    assert said.splitlines()[-1].startswith("dvc-mlflow: stopped; ")
    assert "Traceback" not in said
    wait_until(lambda: not any(map(processes.is_alive, marks)))
    assert project.rows() == []


def test_interrupted_git(tmp_path: Path) -> None:
    """Ctrl-C ends a sweep whose git hangs."""
    project = small(tmp_path)
    project.git("remote", "set-url", "origin", "ssh://example.org/flowers")
    hangs = f"touch {tmp_path}/hangs; exec cat #"
    process = project.start("-S", "x=1", GIT_SSH_COMMAND=hangs)
    wait_until((tmp_path / "hangs").exists, process)
    process.send_signal(signal.SIGINT)
    assert process.said().splitlines()[-1].startswith("dvc-mlflow: stopped; ")
