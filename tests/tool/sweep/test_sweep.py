"""A sweep on this machine leaves complete experiments and rows, in any project."""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil
import pytest
from mlflow import MlflowClient
from mlflow.artifacts import load_text
from mlflow.entities import Run

from support.clone import Clone, environment
from support.disks import small_disk
from support.projects import SCORE, Project, small, stage
from support.servers import serving
from support.team import wait_until

pytestmark = [
    pytest.mark.pipeline,
    pytest.mark.cluster,
    pytest.mark.filterwarnings("ignore"),  # warnings from MLflow
    pytest.mark.skipif(not find_spec("ray"), reason="needs Ray (make cluster-setup)"),
]


def values(rows: Iterable[Run], *keys: str) -> list[tuple[str, ...]]:
    """Return the values of these params in each row, sorted."""
    return sorted(tuple(row.data.params[key] for key in keys) for row in rows)


def check(project: Project, said: str, n: int) -> list[Run]:
    """Return the rows of a sweep of four trials, which are all there, and once each."""
    assert "4 done, 0 failed" in said
    title = said.lstrip().partition(":")[0]
    rows = project.rows()
    assert [row.info.status for row in rows] == ["FINISHED"] * n
    assert {row.data.tags["sweep"] for row in rows} == {title}
    names = [row.data.tags["dvc.exp_name"] for row in rows]
    refs = project.git("ls-remote", "origin", "refs/exps/*").splitlines()
    assert {ref.rpartition("/")[2] for ref in refs} == {*names}
    assert len({*names}) == 4
    return rows


@pytest.mark.versions
def test_project_below_git_root(tmp_path: Path) -> None:
    """A DVC project in a folder is swept from there; what is printed at the end works there."""
    command = "exec python score.py a.json ${x} ${y}"
    files = {"dvc.yaml": {"stages": {"a": stage(command, "a", "x", "y")}}, "score.py": SCORE}
    folder = "models/roses"
    project = Project(tmp_path, {**files, "params.yaml": {"x": 0, "y": 0}}, folder)
    options = ("-S", "x=1,2", "-S", "y=0,1", "--metric=-a/score")
    said = project.sweep(*options)
    rows = check(project, said, 4)
    assert values(rows, "x", "y") == [("1", "0"), ("1", "1"), ("2", "0"), ("2", "1")]
    assert {row.data.tags["folder"] for row in rows} == {folder}
    client = MlflowClient(f"sqlite:///{project.path}/mlflow.db")
    assert client.get_experiment(rows[0].info.experiment_id).name == f"flowers/{folder}"
    title, (best,) = said.partition(":")[0], re.findall("^The best: 0 .*: (.*)$", said, re.M)
    assert f"runs?viewStateShareKey={title}&" in said
    assert "restored, with the md5s" in project.run(*best.split()).stdout
    assert all(row.data.tags["dvc.exp_name"] in project.dvc("exp", "show").stdout for row in rows)
    # Nothing runs again, though git ignores neither mlflow.db nor mlartifacts.
    shutil.rmtree(project.path / "restored")
    (project.top.path / ".git/info/exclude").unlink()
    assert re.search(r" 4 found, 0 new$", project.sweep(*options), re.M)
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
    assert re.search(r"^The best: 5 sweep-\w+ \(x=2\)", said, re.M)
    rows = check(project, said, 8)
    assert values(rows, "x", "key") == [(x, key) for x in "1234" for key in ("blue", "red")]
    # A trial with other items has other rows.
    said = project.sweep("-S", "x=2", "-S", "offsets.red=-1", "--metric=-a/score")
    assert re.search(r"^The best: -1 sweep-\w+ \(x=2 offsets.red=-1\)", said, re.M)
    assert len(project.rows()) == 9


def test_several_params_files(tmp_path: Path) -> None:
    """Params of any file can be varied and searched; no stage needs the prefix to have a row."""
    command = "exec python score.py a.json ${x} ${data.y}"
    own = stage(command, "a", "x", {"conf/more.toml": ["data.y"]})
    dvc = {"vars": ["conf/more.toml"], "stages": {"a": own}}
    files = {"dvc.yaml": dvc, "score.py": SCORE, "params.yaml": {"x": 0}}
    project = Project(tmp_path, {**files, "conf/more.toml": "[data]\ny = 3\n"})
    said = project.sweep("-S", "x=1,2", "-S", "conf/more.toml:data.y=3,4", "--metric=-a/score")
    assert re.search(r"^The best: 3 sweep-\w+ \(x=2 conf/more.toml:data.y=3\)", said, re.M)
    rows, keys = check(project, said, 4), ("x", "more.data.y")
    assert values(rows, *keys) == [("1", "3"), ("1", "4"), ("2", "3"), ("2", "4")]
    space = ["-S", "conf/more.toml:data.y=interval(1,9)", "-S", "x=2,3", "-n", "4"]
    said = project.sweep(*space, "--metric=-a/score", "--name", "flowers")
    assert re.search("^flowers-.* 0 found, 4 new$", said, re.M)
    assert "4 done, 0 failed" in said
    searched = [row for row in project.rows() if "flowers-" in row.data.tags["sweep"]]
    assert len(searched) == 4
    assert all(row.data.params["more.data.y"] in "123456789" for row in searched)


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
    said = project.sweep("-S", "x=1,2,3", check=False)
    assert "2 done, 1 failed" in said
    line = r"sweep-\w+ \(x=3\) failed on \S+ in .* s: .*too large; failed to reproduce 'train': "
    ((log,),) = [re.findall(rf"^{line}.* \(its log: \S+:(\S+)\)$", said, re.M)]
    assert "too large" in Path(log).read_text()
    assert len(re.findall(r"^failed: sweep-\w+ \(x=3\): .*too large", said, re.M)) == 1
    shutil.rmtree(project.clones)
    rows = [row for row in project.rows() if "own" in row.data.params]
    assert values(rows, "own") == [("1",), ("2",), ("3",)]
    texts = [load_text(f"{row.info.artifact_uri}/notes/own.txt") for row in rows]
    assert texts == [row.data.params["own"] for row in rows]


WRITES = """
import json, os, sys
open("{0}/ran", "a").write(".")
open("out.bin", "wb").write(os.urandom(3_000_000))
json.dump({{"score": float(sys.argv[2])}}, open("a.json", "w"))
"""


def writing(path: Path) -> Project:
    """Return a project whose stage writes an output of 3 MB, and notes that it ran."""
    own = stage("exec python score.py a.json ${x} 0", "a", "x", outs=["out.bin"])
    files = {"dvc.yaml": {"stages": {"a": own}}, "score.py": WRITES.format(path)}
    return small(path, files)


def test_full_disk(tmp_path: Path) -> None:
    """A node with a full disk gets no more trials, and one line says where its clones are."""
    project = writing(tmp_path)
    with small_disk(project.clones, "2m"):
        said = project.sweep("-S", "x=1,2", check=False)
    # Git in the other clone, too, can be the first to find it full.
    full = r" gets no more trials: .*(no space left|disk is full).* \(clones are in (\S+)/"
    assert [found[2] for found in re.finditer(full, said, re.I)] == [f"{project.clones}"]
    assert said.endswith("dvc-mlflow: no node is left that can run trials\n")
    assert " failed" not in said


def test_full_remote(tmp_path: Path) -> None:
    """A full remote ends the sweep with its cause and place; then no stage runs again."""
    project = writing(tmp_path)
    with small_disk(tmp_path / "files", "2m") as disk:
        said = project.sweep("-S", "x=1", check=False)
        full = rf"^dvc-mlflow: DVC remote 'files' \({disk}\): .*No space left.*; make room"
        assert re.search(full, said, re.M), said
        assert not project.git("ls-remote", "origin", "refs/exps/*")
        subprocess.run(["mount", "-o", "remount,size=9m", disk], check=True)
        assert "1 done, 0 failed" in project.sweep("-S", "x=1")
    assert (tmp_path / "ran").read_text() == "."


def test_lost_outputs(tmp_path: Path) -> None:
    """An experiment whose outputs the DVC remote lacks is not done: it runs again."""
    project = writing(tmp_path)
    project.sweep("-S", "x=1,2")
    shutil.rmtree(tmp_path / "files")
    (tmp_path / "files").mkdir()
    shutil.rmtree(project.clones)
    said = project.sweep("-S", "x=1,2,3", "--cpus", f"{os.cpu_count()}")  # one after the other
    assert re.search(" 0 found, 3 new$", said, re.M)
    assert "3 done, 0 failed" in said
    assert (tmp_path / "ran").read_text() == "....."
    assert re.search(" 3 found, 0 new$", project.sweep("-S", "x=1,2,3"), re.M)
    assert values(project.rows(), "x") == [("1",), ("1",), ("2",), ("2",), ("3",)]


def test_other_remote(tmp_path: Path) -> None:
    """A node where the remote's folder is another one, as without its disk, keeps no result."""
    script = f"{SCORE}\nimport pathlib\nfor sign in pathlib.Path('{tmp_path}/files').glob('dvc-*'):"
    project = small(tmp_path, {"score.py": f"{script}\n    sign.unlink()"})
    said = project.sweep("-S", "x=1,2", check=False)
    why = (
        f"DVC remote 'files' ({tmp_path}/files): not that of the driver; is its disk mounted here?"
    )
    assert f" gets no more trials: {why}" in said
    assert " done on " not in said
    assert not project.git("ls-remote", "origin", "refs/exps/*")


def test_inputs_and_submodules(tmp_path: Path) -> None:
    """Inputs in the DVC remote, and those of a submodule, are there in each trial."""
    own = stage("exec python score.py a.json ${x} 0", "a", "x")
    own["deps"] += ["raw", "theirs/rows.csv"]
    project = small(tmp_path, {"dvc.yaml": {"stages": {"a": own}}, "raw/a.csv": "1"})
    other = Clone(tmp_path / "other")
    other.path.mkdir()
    other.git("init", "-q")
    (other.path / "rows.csv").write_text("3")
    other.commit()
    allow = ("-c", "protocol.file.allow=always")
    project.git(*allow, "submodule", "add", "-q", f"{other.path}", "theirs")
    project.git("rm", "-q", "-r", "--cached", "raw")
    project.dvc("add", "raw")
    project.commit()
    project.git("push", "-q", "origin", "main")
    project.dvc("push")
    said = project.sweep(
        *("-S", "x=1,2", "--metric=-a/score"),
        GIT_CONFIG_COUNT="1",
        GIT_CONFIG_KEY_0="protocol.file.allow",
        GIT_CONFIG_VALUE_0="always",
    )
    assert "2 done, 0 failed" in said


def began(project: Project, *words: str, **more: str) -> "subprocess.Popen[str]":
    """Begin a sweep."""
    return subprocess.Popen(
        ["dvc-mlflow", "sweep", *words, "--clones", f"{project.clones}"],
        cwd=project.path,
        env=environment(**more),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGINT])
def test_interrupted(ending: signal.Signals, tmp_path: Path) -> None:
    """A local sweep listens on this machine only; SIGTERM and Ctrl-C end it, and all its stages."""
    command = "sh -c 'trap \"\" TERM; python score.py a.json ${x} 0; sleep 600; true'"
    dvc = {"stages": {"a": stage(command, "a", "x")}}
    project = small(tmp_path, {"dvc.yaml": dvc})
    process = began(project, "-S", "x=1,2", HOME=f"{tmp_path}")
    wait_until(lambda: [*project.clones.glob("*/*/*/a.json")], process)
    children = psutil.Process(process.pid).children(recursive=True)
    pids = {process.pid, *(child.pid for child in children)}
    listening = [c for c in psutil.net_connections("tcp") if c.status == "LISTEN" and c.pid in pids]
    assert len(listening) > 3
    assert {c.laddr.ip.removeprefix("::ffff:") for c in listening} == {"127.0.0.1"}
    assert not (tmp_path / ".ray/auth_token").exists()
    process.send_signal(ending)
    said = process.communicate()[0]
    assert process.returncode == 130, said
    assert said.splitlines()[-1].startswith("dvc-mlflow: stopped; ")
    assert "Traceback" not in said
    wait_until(lambda: not [c for c in children if c.is_running() and c.name() == "sleep"])
    assert project.rows() == []


HANGS = """#!/bin/sh
case "$*" in {0}) touch {1}/hangs; [ -e {1}/once ] || {{ touch {1}/once; sleep 600; }};; esac
exec {2} "$@"
"""


def hanging(folder: Path, words: str) -> str:
    """Return a PATH whose git hangs, once, at a command with these words."""
    programs = folder / "programs"
    programs.mkdir()
    (programs / "git").write_text(HANGS.format(words, folder, shutil.which("git")))
    (programs / "git").chmod(0o755)
    return f"{Path(sys.executable).parent}:{programs}:{os.environ['PATH']}"


def test_interrupted_git(tmp_path: Path) -> None:
    """Ctrl-C ends a sweep whose git hangs."""
    project = small(tmp_path)
    process = began(project, "-S", "x=1", PATH=hanging(tmp_path, "*ls-remote*refs/exps*"))
    wait_until((tmp_path / "hangs").exists, process)
    process.send_signal(signal.SIGINT)
    assert process.communicate()[0].splitlines()[-1].startswith("dvc-mlflow: stopped; ")


def test_remote_hangs(tmp_path: Path) -> None:
    """A push that hangs is told and made again, and no stage runs a second time."""
    project = small(tmp_path, {"score.py": f"{SCORE}\nopen('{tmp_path}/ran', 'a').write('.')"})
    path = hanging(tmp_path, "*push*--force-with-lease*")
    said = project.sweep("-S", "x=1", "--metric=-a/score", PATH=path)
    assert "git push: no answer within 15 s; next try in 2 s" in said
    assert "1 done, 0 failed" in said
    assert "will be retried" not in said
    assert (tmp_path / "ran").read_text() == "."


def test_no_such_metric(tmp_path: Path) -> None:
    """A metric that could have been there is refused at the first result, and that is kept."""
    project = small(tmp_path)
    said = project.sweep("-S", "x=1,2", "--metric=a/other", check=False)
    line = "dvc-mlflow: --metric: must be one of a/score; received 'a/other'"
    assert said.splitlines()[-1] == line
    again = project.sweep("-S", "x=1,2", "--metric=a/other", check=False)
    assert again.splitlines() == [line]


def test_terminal(tmp_path: Path) -> None:
    """In a terminal, a bar shows the progress, and each message has its own line."""
    project = small(tmp_path)
    command = f"dvc-mlflow sweep -S x=1,2 --metric=-a/score --clones {project.clones}"
    said = project.run("script", "-qec", f"stty rows 40 cols 140; {command}", "/dev/null").stdout
    lines = [line.strip() for line in re.split(r"[\r\n]+|\x1b\[\w+", said)]
    assert [line for line in lines if re.match(r"\d+%\|.*\| \d/2 ", line)]
    assert len([x for x in lines if re.fullmatch(r"sweep-\w+ \(x=[12]\) done on .* s", x)]) == 2


CARDS = """
import json, os, time
time.sleep(10)
cards = [int(card) for card in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if card]
json.dump({"n": len(cards), "first": cards[0] if cards else -1}, open("a.json", "w"))
"""


def test_cards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of two trials at once sees a card of its own, and no node without any gets one."""
    from ray.cluster_utils import Cluster

    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)  # the pipeline hides all cards
    project = small(tmp_path, {"score.py": CARDS})
    cluster = Cluster(True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        cluster.add_node(num_cpus=4)
        cluster.add_node(num_cpus=2, num_gpus=2)
        with serving(project, "server", "--workers", "1") as server:
            more: Any = ["--address", cluster.address]
            swept = project.sweep("-S", "x=1,2", *more, "--gpus", "1", MLFLOW_TRACKING_URI=server)
            wanted = ["-S", "x=3", *more, "--gpus", "3"]
            refused = project.sweep(*wanted, check=False, MLFLOW_TRACKING_URI=server)
    finally:
        cluster.shutdown()
    assert "2 done, 0 failed" in swept
    assert sorted(row.data.metrics["a/first"] for row in project.rows()) == [0, 1]
    assert refused.splitlines()[-1] == "dvc-mlflow: --gpus: the largest node has 2; received 3"
