"""A sweep on this machine, with its own Ray, leaves complete experiments and rows."""

import os
import re
import shutil
import signal
import sys
from importlib.util import find_spec
from pathlib import Path

import psutil
import pytest
from mlflow import MlflowClient
from mlflow.artifacts import load_text

from support.projects import HANGING, SCORE, Project, check, small, stage, values, wait_until

pytestmark = [
    pytest.mark.pipeline,
    pytest.mark.cluster,
    pytest.mark.filterwarnings("ignore"),  # warnings from MLflow
    pytest.mark.skipif(not find_spec("ray"), reason="needs Ray (make cluster-setup)"),
]


@pytest.mark.versions
def test_project_below_git_root(tmp_path: Path) -> None:
    """A DVC project in a folder is swept from there; what is printed at the end works there."""
    command = "exec python score.py a.json ${x} ${y}"
    files = {"dvc.yaml": {"stages": {"a": stage(command, "a", "x", "y")}}, "score.py": SCORE}
    folder = "models/roses"
    project = Project(tmp_path, {**files, "params.yaml": {"x": 0, "y": 0}}, folder)
    options = ("-S", "x=1,2", "-S", "y=0,1", "--metric=-a/score")
    said = project.sweep(*options)
    rows = check(project, said, 4, 4)
    assert values(rows, "x", "y") == [("1", "0"), ("1", "1"), ("2", "0"), ("2", "1")]
    assert {row.data.tags["folder"] for row in rows} == {folder}
    client = MlflowClient(f"sqlite:///{project.path}/mlflow.db")
    assert client.get_experiment(rows[0].info.experiment_id).name == f"flowers/{folder}"
    title, (best,) = said.partition(":")[0], re.findall("^The best: 0 .*: (.*)$", said, re.M)
    assert f"runs?viewStateShareKey={title}&" in said
    assert "restored, with the md5s" in project.run(*best.split()).stdout
    assert all(row.data.tags["dvc.exp_name"] in project.dvc("exp", "show").stdout for row in rows)
    assert re.search(r" 4 found, 0 new$", project.sweep(*options), re.M)
    assert {row.info.run_id for row in project.rows()} == {row.info.run_id for row in rows}


OWN = """
import mlflow, sys, yaml
x = yaml.safe_load(open("params.yaml"))["x"]
mlflow.set_experiment("theirs")
with mlflow.start_run():
    mlflow.log_param("own", x)
    mlflow.log_text(f"{x}", "notes/own.txt")
open("model.txt", "w").write(str(x))
if x > 2:
    sys.exit("too large")
"""


def test_failing_trials(tmp_path: Path) -> None:
    """A failed trial is told with params, cause and log; the others run.

    What scripts log to experiments of their own is beside the store, not in a clone that goes.
    """
    train = {"cmd": "exec python train.py", "params": ["x"], "outs": ["model.txt"]}
    files = {"dvc.yaml": {"stages": {"train": train}}, "train.py": OWN, "params.yaml": {"x": 0}}
    project = Project(tmp_path, files)
    said = project.sweep("-S", "x=2,3", check=False)
    assert "1 done, 1 failed" in said
    assert "is tried again" not in said
    assert "Traceback" not in said
    line = r"sweep-\w+ \(x=3\) failed on \S+ in .* s: .*too large; failed to reproduce 'train': "
    ((log,),) = [re.findall(rf"^{line}.* \(its log: (\S+)\)$", said, re.M)]
    assert "too large" in Path(log).read_text()
    assert len(re.findall(r"^failed: sweep-\w+ \(x=3\): .*too large", said, re.M)) == 1
    shutil.rmtree(project.clones)
    rows = [row for row in project.rows() if "own" in row.data.params]
    assert values(rows, "own") == [("2",), ("3",)]
    texts = [load_text(f"{row.info.artifact_uri}/notes/own.txt") for row in rows]
    assert texts == [row.data.params["own"] for row in rows]


def test_interrupted(tmp_path: Path) -> None:
    """A local sweep listens on this machine only; SIGTERM ends it, and all its stages."""
    project = small(tmp_path, HANGING)
    process = project.start("-S", "x=1,2", HOME=f"{tmp_path}")
    wait_until(lambda: [*Path(project.clones).glob("*/*/clone/a.json")], process)
    children = psutil.Process(process.pid).children(recursive=True)
    pids = {process.pid, *(child.pid for child in children)}
    listening = [c for c in psutil.net_connections("tcp") if c.status == "LISTEN" and c.pid in pids]
    assert len(listening) > 3
    assert {c.laddr.ip.removeprefix("::ffff:") for c in listening} == {"127.0.0.1"}
    assert not (tmp_path / ".ray/auth_token").exists()
    process.send_signal(signal.SIGTERM)
    said = process.communicate()[0]
    assert process.returncode == 130, said
    assert said.splitlines()[-1].startswith("dvc-mlflow: stopped; ")
    assert "Traceback" not in said
    wait_until(lambda: not [c for c in children if c.is_running() and c.name() == "sleep"])
    assert project.rows() == []


HANGS = """#!/bin/sh
case "$*" in *ls-remote*refs/exps*) touch {0}/hangs; exec sleep 600;; esac
exec {1} "$@"
"""


def test_interrupted_git(tmp_path: Path) -> None:
    """Ctrl-C ends a sweep whose git hangs."""
    project = small(tmp_path)
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "git").write_text(HANGS.format(tmp_path, shutil.which("git")))
    (programs / "git").chmod(0o755)
    path = f"{Path(sys.executable).parent}:{programs}:{os.environ['PATH']}"
    process = project.start("-S", "x=1", PATH=path)
    wait_until((tmp_path / "hangs").exists, process)
    process.send_signal(signal.SIGINT)
    assert process.communicate()[0].splitlines()[-1].startswith("dvc-mlflow: stopped; ")
