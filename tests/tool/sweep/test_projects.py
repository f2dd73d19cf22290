"""Sweeps work for any DVC project, on this machine and without a cluster."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import psutil
import pytest
from mlflow import MlflowClient
from mlflow.artifacts import load_text
from mlflow.entities import Run

from support.clone import environment
from support.projects import SCORE, Project, small, stage
from support.team import wait_until

pytestmark = [
    pytest.mark.pipeline,
    pytest.mark.versions,
    pytest.mark.cluster,
    pytest.mark.filterwarnings("ignore"),  # warnings from MLflow
    pytest.mark.skipif(not find_spec("ray"), reason="needs Ray (make cluster-setup)"),
]


def values(rows: Iterable[Run], *keys: str) -> list[tuple[str, ...]]:
    """Return the values of these params in each row, sorted."""
    return sorted(tuple(row.data.params[key] for key in keys) for row in rows)


def check(project: Project, said: str, n: int) -> list[Run]:
    """Return the rows of a sweep of four trials, which are all there, and once each."""
    assert "4 done, 0 running, 0 failed, 0 left" in said
    title = re.sub(".* is recorded from git .*", "", said).lstrip().partition(":")[0]
    rows = project.rows()
    assert [row.info.status for row in rows] == ["FINISHED"] * n
    assert {row.data.tags["sweep"] for row in rows} == {title}
    names = [row.data.tags["dvc.exp_name"] for row in rows]
    assert len({*names}) == 4
    refs = project.git("ls-remote", "origin", "refs/exps/*").splitlines()
    assert {ref.rpartition("/")[2] for ref in refs} == {*names}
    return rows


LOCK = """
[[package]]
name = "tqdm"
version = "{tqdm}"

[[package]]
name = "PyYAML"
version = "1.0"

[[package]]
name = "pyyaml"
version = "{yaml}"

[[package]]
name = "only-on-windows"
version = "1.0"

[[package]]
name = "flowers"
version = "1.0"
source = {{ virtual = "." }}
"""
"""Two packages that are installed here, one of them in two versions, and two that are not."""
FIT = LOCK.format(tqdm=version("tqdm"), yaml=version("pyyaml"))
UNFIT = LOCK.format(tqdm="1.0", yaml=version("pyyaml"))


def test_project_below_git_root(tmp_path: Path) -> None:
    """A DVC project in a folder of the repository is swept from there, and has its own rows."""
    command = "exec python score.py a.json ${x} ${y}"
    files = {"dvc.yaml": {"stages": {"a": stage(command, "a", "x", "y")}}, "score.py": SCORE}
    files["uv.lock"] = FIT
    folder = "models/roses"
    project = Project(tmp_path, {**files, "params.yaml": {"x": 0, "y": 0}}, folder)
    said = project.sweep("-S", "x=1,2", "-S", "y=0,1", "--metric=-a/score")
    assert "best 0 (x=2 y=0)" in said
    rows = check(project, said, 4)
    assert values(rows, "x", "y") == [("1", "0"), ("1", "1"), ("2", "0"), ("2", "1")]
    assert {row.data.tags["folder"] for row in rows} == {folder}
    client = MlflowClient(f"sqlite:///{project.path}/mlflow.db")
    assert client.get_experiment(rows[0].info.experiment_id).name == f"flowers/{folder}"
    # Nothing runs again, though git ignores neither mlflow.db nor mlartifacts.
    (project.top.path / ".git/info/exclude").unlink()
    again = project.sweep("-S", "x=1,2", "-S", "y=0,1", "--metric=-a/score")
    assert re.search(r" 4 found, 0 new$", again, re.M)
    assert {row.info.run_id for row in project.rows()} == {row.info.run_id for row in rows}


def test_foreach(tmp_path: Path) -> None:
    """Each item of a foreach is a row of the trial; the best of them is the trial's metric."""
    item = {
        "cmd": "exec python score.py ${key}.json ${x} ${item}",
        "deps": ["score.py"],
        "params": ["x"],
        "metrics": [{"${key}.json": {"cache": True}}],
    }
    dvc = {"stages": {"a": {"foreach": "${offsets}", "do": item}}}
    params = {"x": 0, "offsets": {"red": 5, "blue": 7}}
    project = Project(tmp_path, {"dvc.yaml": dvc, "score.py": SCORE, "params.yaml": params})
    said = project.sweep("-S", "x=1,2,3,4", "--metric=-a/score")
    assert "best 5 (x=2)" in said
    rows = check(project, said, 8)
    # The best row has a picture of the sweep.
    ((run_id, picture),) = re.findall(r"^A picture .*/(\w+)/artifacts/(sweeps/\S+)\?", said, re.M)
    (best,) = [row for row in rows if row.info.run_id == run_id]
    assert best.data.metrics == {"a/score": 5}
    artifacts = Path(best.info.artifact_uri.removeprefix("file://"))
    assert (artifacts / picture).read_bytes().startswith(b"\x89PNG")
    assert values(rows, "x", "key") == [(x, key) for x in "1234" for key in ("blue", "red")]
    # A trial with other items has other rows.
    said = project.sweep("-S", "x=2", "-S", "offsets.red=-1", "--metric=-a/score")
    assert "best -1 (x=2 offsets.red=-1)" in said
    assert len(project.rows()) == 9


def test_several_params_files(tmp_path: Path) -> None:
    """Params of any file can be varied and searched; no stage needs the prefix to have a row."""
    command = "exec python score.py a.json ${x} ${data.y}"
    own = stage(command, "a", "x", {"conf/more.toml": ["data.y"]})
    dvc = {"vars": ["conf/more.toml"], "stages": {"a": own}}
    files = {"dvc.yaml": dvc, "score.py": SCORE, "params.yaml": {"x": 0}}
    project = Project(tmp_path, {**files, "conf/more.toml": "[data]\ny = 3\n"})
    said = project.sweep("-S", "x=1,2", "-S", "conf/more.toml:data.y=3,4", "--metric=-a/score")
    assert "best 3 (x=2 conf/more.toml:data.y=3)" in said
    assert len(re.findall("^sweep-.* is recorded from git and DVC", said, re.M)) == 4
    rows = check(project, said, 4)
    keys = ("x", "more.data.y")
    assert values(rows, *keys) == [("1", "3"), ("1", "4"), ("2", "3"), ("2", "4")]
    names = {(row.info.run_name or "").rpartition(" ")[0] for row in rows}
    assert names == {"x=1", "x=2", "x=1 y=4", "x=2 y=4"}
    space = ["--optuna", "conf/more.toml:data.y=interval(1,9)", "--optuna", "x=2,3"]
    said = project.sweep(*space, "--trials", "4", "--metric=-a/score")
    assert re.search(r"4 done, 0 running, 0 failed, 0 left, best \d+ ", said)
    searched = [row for row in project.rows() if row.data.tags["sweep"].startswith("optuna-")]
    assert all(row.data.params["more.data.y"] in "123456789" for row in searched)


OWN = """
import mlflow, sys, yaml
x = yaml.safe_load(open("params.yaml"))["x"]
mlflow.set_experiment("theirs")
with mlflow.start_run():
    mlflow.log_param("own", x)
    mlflow.log_text(f"{x}", "notes/own.txt")
if x == 2:
    sys.exit("x: must not be 2")
open("model.txt", "w").write(str(x))
"""
SINCE = (3, 8)  # of MLflow: an older one has such an experiment's files in the clone


@pytest.mark.skipif(
    tuple(map(int, version("mlflow").split(".")[:2])) < SINCE, reason="needs MLflow 3.8"
)
def test_own_experiment(tmp_path: Path) -> None:
    """The files of an experiment that a script creates are beside the store's, not in a clone."""
    train = {"cmd": "exec python train.py", "params": ["x"], "outs": ["model.txt"]}
    files = {"dvc.yaml": {"stages": {"train": train}}, "train.py": OWN, "params.yaml": {"x": 0}}
    project = Project(tmp_path, files)
    said = project.sweep("-S", "x=1,2,3", "--metric=own", check=False)
    assert "x: must not be 2" in said
    shutil.rmtree(project.clones)
    rows = [row for row in project.rows() if "own" in row.data.params]
    assert {*values(rows, "own")} == {("1",), ("2",), ("3",)}
    for row in rows:
        text = load_text(f"{row.info.artifact_uri}/notes/own.txt")
        assert text == row.data.params["own"]
        assert row.info.artifact_uri.startswith((project.path / "mlartifacts").as_uri())


def test_terminated(tmp_path: Path) -> None:
    """A local sweep listens on this machine only, and SIGTERM ends it as Ctrl-C does.

    It writes no token, and leaves no row running.
    """
    command = "exec dvc-mlflow run sh -c 'python score.py a.json ${x} 0; sleep 600'"
    dvc = {"stages": {"a": stage(command, "a", "x")}}
    files = {"dvc.yaml": dvc, "score.py": SCORE, "params.yaml": {"x": 0}}
    project = Project(tmp_path, files)
    options = ["-S", "x=1,2", "--metric=-a/score", "--clones", f"{project.clones}"]
    process = subprocess.Popen(
        ["dvc-mlflow", "sweep", *options],
        cwd=project.path,
        env=environment(HOME=f"{tmp_path}"),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    wait_until(lambda: [*project.clones.glob("*/*/*/a.json")], process)
    children = psutil.Process(process.pid).children(recursive=True)
    pids = {process.pid, *(child.pid for child in children)}
    listening = [c for c in psutil.net_connections("tcp") if c.status == "LISTEN" and c.pid in pids]
    assert len(listening) > 3
    assert {c.laddr.ip.removeprefix("::ffff:") for c in listening} == {"127.0.0.1"}
    assert not (tmp_path / ".ray/auth_token").exists()
    process.terminate()
    said = process.communicate()[0]
    assert process.returncode == 130, said
    assert said.splitlines()[-1].startswith("dvc-mlflow: stopped; ")
    assert "Traceback" not in said
    assert project.rows() == []


HANGS = """#!/bin/sh
case "$*" in *push*--force-with-lease*) touch {0}/pushed; exec sleep 600;; esac
exec {1} "$@"
"""


def test_remote_hangs(tmp_path: Path) -> None:
    """A push that hangs is ended and made again, and no stage runs a second time."""
    project = small(tmp_path, {"score.py": f"{SCORE}\nopen('{tmp_path}/ran', 'a').write('.')"})
    programs = tmp_path / "programs"
    programs.mkdir()
    script = HANGS.format(tmp_path, shutil.which("git"))
    (programs / "git").write_text(
        script.replace("touch", f"mv {programs}/git {programs}/was; touch")
    )
    (programs / "git").chmod(0o755)
    path = f"{Path(sys.executable).parent}:{programs}:{os.environ['PATH']}"
    said = project.sweep("-S", "x=1", "--metric=-a/score", PATH=path)
    assert (tmp_path / "pushed").exists()
    assert "1 done, 0 running, 0 failed, 0 left" in said
    assert "will be retried" not in said
    assert (tmp_path / "ran").read_text() == "."


def test_terminal(tmp_path: Path) -> None:
    """In a terminal, a bar shows the progress, and each message has its own line."""
    project = small(tmp_path)
    command = f"dvc-mlflow sweep -S x=1,2 --metric=-a/score --clones {project.clones}"
    said = project.run("script", "-qec", f"stty rows 40 cols 140; {command}", "/dev/null").stdout
    lines = [line.strip() for line in re.split(r"[\r\n]+", said)]
    (bar, *_) = [line for line in lines if line.startswith("100% |") and " best " in line]
    assert re.search(r"\| 0\d:\d\d 2 done, 0 running, 0 failed, 0 left, best 0 \(x=2\)", bar)
    whole = r"sweep-\w+ (is recorded from git and DVC, .*|done on .* in .* s: [01] \(x=[12]\))"
    assert len([line for line in lines if re.fullmatch(whole, line)]) == 4
    assert "2 done, 0 running, 0 failed, 0 left, best 0 (x=2)" in lines


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("uv.lock", UNFIT),
        ("poetry.lock", UNFIT),
        ("environment.yml", "dependencies:\n  - pip:\n      - tqdm==1.0\n"),
    ],
)
def test_pins(file: str, content: str, tmp_path: Path) -> None:
    """A node must have the pinned versions, of a known lock file or one that --pins names."""
    project = small(tmp_path, {file: content})
    pins = ["--pins", file] * (not file.endswith(".lock"))
    said = project.sweep("-S", "x=1,2", "--metric=-a/score", *pins, check=False)
    assert f" gets no more trials: tqdm {version('tqdm')} is not 1.0" in said
    assert said.splitlines()[-1] == "dvc-mlflow: no node is left that can run trials"


def test_no_pins(tmp_path: Path) -> None:
    """With `--pins none`, nodes need not have what a lock says."""
    project = small(tmp_path, {"uv.lock": UNFIT})
    said = project.sweep("-S", "x=1", "--metric=-a/score", "--pins", "none")
    assert "1 done, 0 running, 0 failed, 0 left" in said


@pytest.mark.parametrize(
    ("file", "words"), [("nowhere.txt", "there is no such file"), ("bad.lock", "must be a lock of")]
)
def test_bad_pins(file: str, words: str, tmp_path: Path) -> None:
    """A file of pins that cannot be read is reported before anything runs."""
    project = small(tmp_path, {"bad.lock": "[[package]]\n"})
    said = project.sweep("-S", "x=1,2", "--metric=-a/score", "--pins", file, check=False)
    (line,) = said.splitlines()
    assert line.startswith(f"dvc-mlflow: --pins: {words}")
    assert file in line


def test_no_metric(tmp_path: Path) -> None:
    """A search needs a metric: where no result has one, --metric must say what best means."""
    said = small(tmp_path).sweep("--optuna", "x=1,2", check=False)
    assert said.splitlines()[-1].startswith("dvc-mlflow: --metric: name what best means, such as ")
