"""A sweep leaves complete experiments and rows in any project, whatever its node and remotes do."""

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from unittest.mock import patch

import psutil
import pytest

from support.clone import Clone
from support.disks import small_disk
from support.projects import HANGING, SCORE, Project, Shared, check, small, stage, values
from support.servers import serving
from support.team import wait_until

pytestmark = [
    pytest.mark.pipeline,
    pytest.mark.cluster,
    pytest.mark.filterwarnings("ignore"),  # warnings from MLflow
    pytest.mark.skipif(not find_spec("ray"), reason="needs Ray (make cluster-setup)"),
]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shared]:
    """A node with two cores, and a tracking server, for all sweeps that need none of their own."""
    from ray.cluster_utils import Cluster

    allow = {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "protocol.file.allow"}  # for submodules
    with patch.dict(os.environ, allow, GIT_CONFIG_VALUE_0="always"):
        cluster = Cluster(True, head_node_args={"num_cpus": 2, "include_dashboard": False})
    store = Clone(tmp_path_factory.mktemp("store"))
    store.add_store()
    try:
        with serving(store, "server", "--workers", "1") as server:
            yield Shared(cluster, server)
    finally:
        cluster.shutdown()


def test_foreach(shared: Shared, tmp_path: Path) -> None:
    """Each item of a foreach is a row of the trial; the best of them is the trial's metric."""
    item = {
        "cmd": "exec python score.py ${key}.json ${x} ${item}",
        "deps": ["score.py"],
        "params": ["x"],
        "metrics": [{"${key}.json": {"cache": True}}],
    }
    dvc = {"stages": {"a": {"foreach": "${offsets}", "do": item}}}
    params = {"x": 0, "offsets": {"red": 5, "blue": 7}}
    files = {"dvc.yaml": dvc, "score.py": SCORE, "params.yaml": params}
    project = Project(tmp_path, files, on=shared)
    said = project.sweep("-S", "x=1,2", "--metric=-a/score")
    assert re.search(r"^The best: 5 sweep-\w+ \(x=2\)", said, re.M)
    rows = check(project, said, 2, 4)
    assert values(rows, "x", "key") == [(x, key) for x in "12" for key in ("blue", "red")]
    # A trial with other items has other rows.
    said = project.sweep("-S", "x=2", "-S", "offsets.red=-1", "--metric=-a/score")
    assert re.search(r"^The best: -1 sweep-\w+ \(x=2 offsets.red=-1\)", said, re.M)
    assert len(project.rows()) == 5


def test_several_params_files(shared: Shared, tmp_path: Path) -> None:
    """Params of any file can be varied and searched; no stage needs the prefix to have a row."""
    command = "exec python score.py a.json ${x} ${data.y}"
    own = stage(command, "a", "x", {"conf/more.toml": ["data.y"]})
    dvc = {"vars": ["conf/more.toml"], "stages": {"a": own}}
    files = {"dvc.yaml": dvc, "score.py": SCORE, "params.yaml": {"x": 0}}
    project = Project(tmp_path, {**files, "conf/more.toml": "[data]\ny = 3\n"}, on=shared)
    said = project.sweep("-S", "x=2", "-S", "conf/more.toml:data.y=3,4", "--metric=-a/score")
    assert re.search(r"^The best: 3 sweep-\w+ \(x=2 conf/more.toml:data.y=3\)", said, re.M)
    assert values(check(project, said, 2, 2), "x", "more.data.y") == [("2", "3"), ("2", "4")]
    space = ["-S", "conf/more.toml:data.y=interval(1,9)", "-S", "x=2,3", "-n", "2"]
    said = project.sweep(*space, "--metric=-a/score", "--name", "flowers")
    assert re.search("^flowers-.* 0 found, 2 new$", said, re.M)
    assert "2 done, 0 failed" in said
    searched = [row for row in project.rows() if "flowers-" in row.data.tags["sweep"]]
    assert len(searched) == 2
    assert all(row.data.params["more.data.y"] in "123456789" for row in searched)


WRITES = """
import json, os, sys
open("{0}/ran", "a").write(".")
open("out.bin", "wb").write(os.urandom(3_000_000))
json.dump({{"score": float(sys.argv[2])}}, open("a.json", "w"))
"""


def writing(path: Path, on: Shared) -> Project:
    """Return a project whose stage writes an output of 3 MB, and notes that it ran."""
    own = stage("exec python score.py a.json ${x} 0", "a", "x", outs=["out.bin"])
    files = {"dvc.yaml": {"stages": {"a": own}}, "score.py": WRITES.format(path)}
    return small(path, files, on)


def test_full_disk(shared: Shared, tmp_path: Path) -> None:
    """A node with a full disk gets no more trials, and one line says where its clones are."""
    project = writing(tmp_path, shared)
    with small_disk(project.clones, "2m"):
        said = project.sweep("-S", "x=1,2", check=False)
    # Git in the other clone, too, can be the first to find it full.
    full = r" gets no more trials: .*(no space left|disk is full).* \(clones are in (\S+)/"
    assert [found[2] for found in re.finditer(full, said, re.I)] == [f"{project.clones}"]
    assert said.endswith("dvc-mlflow: no node is left that can run trials\n")
    assert " failed" not in said


def test_full_remote(shared: Shared, tmp_path: Path) -> None:
    """A full remote ends the sweep with its cause and place; then no stage runs again."""
    project = writing(tmp_path, shared)
    with small_disk(tmp_path / "files", "2m") as disk:
        said = project.sweep("-S", "x=1", check=False)
        full = rf"^dvc-mlflow: DVC remote 'files' \({disk}\): .*No space left.*; make room"
        assert re.search(full, said, re.M), said
        assert not project.git("ls-remote", "origin", "refs/exps/*")
        subprocess.run(["mount", "-o", "remount,size=9m", disk], check=True)
        assert "1 done, 0 failed" in project.sweep("-S", "x=1")
    assert (tmp_path / "ran").read_text() == "."


def test_lost_outputs(shared: Shared, tmp_path: Path) -> None:
    """An experiment whose outputs the DVC remote lacks is not done: it runs again."""
    project = writing(tmp_path, shared)
    project.sweep("-S", "x=1")
    shutil.rmtree(tmp_path / "files")
    (tmp_path / "files").mkdir()
    shutil.rmtree(project.clones)
    said = project.sweep("-S", "x=1,2", "--cpus", "2")  # one after the other
    assert re.search(" 0 found, 2 new$", said, re.M)
    assert "2 done, 0 failed" in said
    assert (tmp_path / "ran").read_text() == "..."
    assert re.search(" 2 found, 0 new$", project.sweep("-S", "x=1,2"), re.M)
    assert values(project.rows(), "x") == [("1",), ("1",), ("2",)]


def test_other_remote(shared: Shared, tmp_path: Path) -> None:
    """A node where the remote's folder is another one, as without its disk, keeps no result."""
    script = f"{SCORE}\nimport pathlib\nfor sign in pathlib.Path('{tmp_path}/files').glob('dvc-*'):"
    project = small(tmp_path, {"score.py": f"{script}\n    sign.unlink()"}, shared)
    said = project.sweep("-S", "x=1,2", check=False)
    why = (
        f"DVC remote 'files' ({tmp_path}/files): not that of the driver; is its disk mounted here?"
    )
    assert f" gets no more trials: {why}" in said
    assert " done on " not in said
    assert not project.git("ls-remote", "origin", "refs/exps/*")


def test_inputs_and_submodules(shared: Shared, tmp_path: Path) -> None:
    """Inputs in the DVC remote, and those of a submodule, are there in a trial."""
    own = stage("exec python score.py a.json ${x} 0", "a", "x")
    own["deps"] += ["raw", "theirs/rows.csv"]
    project = small(tmp_path, {"dvc.yaml": {"stages": {"a": own}}, "raw/a.csv": "1"}, shared)
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
    assert "1 done, 0 failed" in project.sweep("-S", "x=1", "--metric=-a/score")


def test_hanging_trial(shared: Shared, tmp_path: Path) -> None:
    """A trial that hangs is ended with its processes after the timeout, and has no row."""
    project = small(tmp_path, HANGING, shared)
    said = project.sweep("-S", "x=1", "--timeout", "10", check=False)
    assert re.search(r"^sweep-\S+ \(x=1\) failed on .*: ended after 10 s \(--timeout\)", said, re.M)
    assert [*project.clones.glob("*/*/*/a.json")]
    assert not [p for p in psutil.process_iter(["cwd"]) if below(p.info["cwd"], project.clones)]
    assert project.rows() == []


def below(path: str | None, folder: Path) -> bool:
    """Whether a path is in a folder."""
    return Path(path or "/").is_relative_to(folder)


HOOK = """#!/bin/sh
mkdir {0}/once || exit 0
until [ -e {0}/ended ]; do sleep 0.1; done
exit 1
"""


def test_remote_hangs(shared: Shared, tmp_path: Path) -> None:
    """A push that hangs is told and made again, and no stage runs a second time."""
    script = f"{SCORE}\nopen('{tmp_path}/ran', 'a').write('.')"
    project = small(tmp_path, {"score.py": script}, shared)
    hook = project.remote / "hooks/pre-receive"
    hook.write_text(HOOK.format(tmp_path))
    hook.chmod(0o755)
    said = project.sweep("-S", "x=1", "--metric=-a/score")
    (tmp_path / "ended").touch()
    assert "git push: no answer within 15 s; next try in 2 s" in said
    assert "1 done, 0 failed" in said
    assert "will be retried" not in said
    assert (tmp_path / "ran").read_text() == "."


def test_no_such_metric(shared: Shared, tmp_path: Path) -> None:
    """A metric that could have been there is refused at the first result, and that is kept."""
    project = small(tmp_path, on=shared)
    said = project.sweep("-S", "x=1", "--metric=a/other", check=False)
    line = "dvc-mlflow: --metric: must be one of a/score; received 'a/other'"
    assert said.splitlines()[-1] == line
    again = project.sweep("-S", "x=1", "--metric=a/other", check=False)
    assert again.splitlines() == [line]


def test_terminal(shared: Shared, tmp_path: Path) -> None:
    """In a terminal, a bar shows the progress, and each message has its own line."""
    project = small(tmp_path, on=shared)
    command = f"stty rows 40 cols 140; {shlex.join(project.command('-S', 'x=1,2'))}"
    said = project.run(
        "script", "-qec", command, "/dev/null", MLFLOW_TRACKING_URI=shared.server
    ).stdout
    lines = [line.strip() for line in re.split(r"[\r\n]+|\x1b\[\w+", said)]
    assert [line for line in lines if re.match(r"\d+%\|.*\| \d/2 ", line)]
    assert len([x for x in lines if re.fullmatch(r"sweep-\w+ \(x=[12]\) done on .* s", x)]) == 2


TOGETHER = """
import os, time
open(f"{folder}/{{os.getpid()}}", "w").close()
while len(os.listdir("{folder}")) < 2:
    time.sleep(0.1)
"""
"""The begin of a script that waits until two trials run."""


def test_two_drivers(shared: Shared, tmp_path: Path) -> None:
    """If two sweeps run the same trial at the same time, the first result stands, in one row."""
    (begun := tmp_path / "begun").mkdir()
    project = small(tmp_path, {"score.py": TOGETHER.format(folder=begun) + SCORE}, shared)
    both = [project.start("-S", "x=1") for _ in range(2)]
    said = [process.communicate()[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert all("1 done, 0 failed" in each for each in said)
    assert len(project.experiments()) == 1
    assert [row.info.status for row in project.rows()] == ["FINISHED"]


def test_killed_search(shared: Shared, tmp_path: Path) -> None:
    """A search whose driver was killed goes on, and ends with one row for each point."""
    pytest.importorskip("optuna", reason="not installed: the extra `cluster` (make cluster-setup)")
    project = small(tmp_path, on=shared)
    search = ["-S", "x=interval(1,9)", "-n", "4", "--metric=-a/score"]
    process = project.start(*search)
    wait_until(project.experiments, process)
    process.kill()
    process.communicate()
    said = project.sweep(*search)
    assert re.search(r"^search-\w+: trials of commit \w{7}, [123] found, [123] new$", said, re.M)
    assert "4 done, 0 failed" in said
    assert len(project.experiments()) == 4
    rows = project.rows()
    assert [row.info.status for row in rows] == ["FINISHED"] * 4
    points = {row.data.params["x"] for row in rows}
    assert len(points) == 4
    assert points < {*"123456789"}


def test_stage_killed(shared: Shared, tmp_path: Path) -> None:
    """A trial is retried if a signal ended its stage, as when the node's memory is used up."""
    once = f"import os, signal\nif not os.path.exists('{tmp_path}/once'):\n"
    once += f"    os.mkdir('{tmp_path}/once')\n    os.kill(os.getpid(), signal.SIGKILL)\n"
    project = small(tmp_path, {"score.py": once + SCORE}, shared)
    said = project.sweep("-S", "x=1")
    assert re.search(r" will be retried in 2 s; .*score\.py a\.json 1 0, exited with -9 ", said)
    assert "1 done, 0 failed" in said
    assert [row.info.status for row in project.rows()] == ["FINISHED"]


CARDS = """
import json
cards = [int(card) for card in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if card]
json.dump({"n": len(cards), "first": cards[0] if cards else -1}, open("a.json", "w"))
"""


def test_cards(shared: Shared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of two trials at once sees a card of its own, and no node without any gets one.

    A trial that no node can run is refused at once.
    """
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)  # the pipeline hides all cards
    (begun := tmp_path / "begun").mkdir()
    project = small(tmp_path, {"score.py": TOGETHER.format(folder=begun) + CARDS}, shared)
    node = shared.cluster.add_node(num_cpus=2, num_gpus=2)
    try:
        assert "2 done, 0 failed" in project.sweep("-S", "x=1,2", "--gpus", "1")
        for option in ("--gpus", "--cpus"):
            command = project.command("-S", "x=3", option, "3")
            done = project.run(*command, check=False, MLFLOW_TRACKING_URI=shared.server)
            line = f"dvc-mlflow: {option}: the largest node has 2; received 3"
            assert done.stderr.splitlines()[-1] == line
    finally:
        shared.cluster.remove_node(node)
    assert sorted(row.data.metrics["a/first"] for row in project.rows()) == [0, 1]
