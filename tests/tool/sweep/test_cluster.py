"""Over two nodes, whatever fails, no trial is lost, and none has a result twice."""

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from unittest.mock import patch

import psutil
import pytest

from dvc_mlflow.sweep import node as node_of_sweep
from support.clone import Clone, environment
from support.disks import small_disk
from support.pipelines import Repository
from support.projects import (
    HANGING,
    SCORE,
    Project,
    Shared,
    check,
    small,
    stage,
    values,
    wait_until,
)
from support.services import MISSING, PASSWORD, TrackingServer, postgresql, ssh

pytestmark = [
    pytest.mark.pipeline,
    pytest.mark.cluster,
    pytest.mark.filterwarnings("ignore"),  # warnings from Ray and MLflow
    pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}"),
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TrackingServer]:
    """A tracking server with users, on PostgreSQL, for all tests of this module."""
    with postgresql() as database, pytest.MonkeyPatch.context() as own:
        server = TrackingServer(database, tmp_path_factory.mktemp("server") / "mlflow")
        for name, value in server.client.items():
            own.setenv(name, value)
        yield server


@pytest.fixture(scope="module")
def up(server: TrackingServer) -> Iterator[ExitStack]:
    """What stops the server."""
    with ExitStack() as up:
        up.enter_context(server.up())
        yield up


@pytest.fixture(scope="module")
def shared(
    tmp_path_factory: pytest.TempPathFactory, server: TrackingServer, up: ExitStack
) -> Iterator[Shared]:
    """A cluster for all tests of this module."""
    allow = {"GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "protocol.file.allow"}  # for submodules
    notices = {"RAY_health_check_failure_threshold": "3"}  # as docs/SWEEP.md says
    with patch.dict(os.environ, {**allow, **notices}, GIT_CONFIG_VALUE_0="always"):
        found = Shared(tmp_path_factory.mktemp("nodes"), server.client)
    try:
        yield found
    finally:
        found.cluster.shutdown()


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nodes say soon that they have failed."""
    monkeypatch.setattr(node_of_sweep, "_SLOW", 2.0)


TOGETHER = """
import os, time
open(f"{folder}/{{os.getpid()}}", "w").close()
while len(os.listdir("{folder}")) < 2:
    time.sleep(0.1)
"""
"""The begin of a script that waits until two trials run."""


def test_two_nodes(shared: Shared, tmp_path: Path) -> None:
    """Two trials run on two nodes, and leave what `dvc exp run` does, over SSH, and a row each.

    The server's password is in nothing that a sweep or Ray writes. A larger grid runs what is new.
    """
    (begun := tmp_path / "begun").mkdir()
    own = stage("exec python score.py a.json ${x} 0", "a", "x", outs=["model.txt"])
    script = f"{TOGETHER.format(folder=begun)}{SCORE}\nopen('model.txt', 'w').write(str(x))"
    project = small(tmp_path, {"dvc.yaml": {"stages": {"a": own}}, "score.py": script}, shared)
    with ssh(tmp_path / "ssh") as (port, key):
        address = f"ssh://127.0.0.1:{port}{tmp_path}/files"
        project.dvc("remote", "modify", "files", "url", address)
        project.dvc("remote", "modify", "--local", "files", "keyfile", f"{key}")
        project.commit()
        project.git("push", "-q", "origin", "main")
        said = project.sweep("-S", "x=1,2", "--metric=-a/score")
        again = project.sweep("-S", "x=3,2,1", "--metric=-a/score", "--name", "larger")
        (best,) = re.findall(r"^The best: 0 sweep-\w+ \(x=2\): (.*)$", again, re.M)
        restored = Repository(project.path).tool(*best.split()[1:]).out
    assert re.search(r"^grid-\w{12}: trials of commit \w{7}, 0 found, 2 new$", said, re.M)
    assert len(re.findall(r"^sweep-\w+ \(x=[12]\) done on \S+ in [\d.]+ s$", said, re.M)) == 2
    assert re.search(r"^larger-\w{12}: trials of commit \w{7}, 2 found, 1 new$", again, re.M)
    assert f"In MLflow: {shared.client['MLFLOW_TRACKING_URI']}/#/experiments/" in again
    assert "restored, with the md5s of its dvc.lock" in restored
    rows = check(project, again, 3, 3)
    assert values(rows, "x") == [("1",), ("2",), ("3",)]
    assert {row.data.tags["mlflow.user"] for row in rows} == {"Tester"}  # the author
    assert len([*(shared.folder).glob(f"node-*/{tmp_path.name}/*/*/clone")]) == 2
    logs = [*shared.folder.rglob("sweep-*.log"), *shared.logs.rglob("*.*")]
    assert len(logs) > 10
    texts = [said, again, *(log.read_text(errors="replace") for log in logs)]
    assert not [text for text in texts if PASSWORD in text]
    name = next(row.data.tags["dvc.exp_name"] for row in rows if row.data.params["x"] == "3")
    project.dvc("exp", "run", "-n", "plain", "-S", "x=3")
    trees = [project.git("rev-parse", f"{ref}^{{tree}}") for ref in refs(project, name, "plain")]
    assert trees[0] == trees[1]


def refs(project: Project, *names: str) -> list[str]:
    """Return the refs of experiments."""
    return [project.git("for-each-ref", "--format=%(refname)", f"refs/exps/*/*/{n}") for n in names]


def test_run_cache(shared: Shared, tmp_path: Path) -> None:
    """Any node restores an unchanged stage, but for params that the run cache does not tell apart.

    A stage would have one result for every `size` (treeverse/dvc#10296).
    """
    make = f"exec sh -c 'echo ran >> {tmp_path}/ran; cat params.yaml > made.txt'"
    stages = {
        "prepare": {"cmd": make, "deps": ["score.py"], "params": ["prepare"], "outs": ["made.txt"]},
        "a": stage("exec python score.py a.json ${x} ${prepare.size}", "a", "x"),
    }
    stages["a"]["deps"] += ["made.txt"]
    files = {"dvc.yaml": {"stages": stages}, "params.yaml": {"x": 2, "prepare": {"size": 1}}}
    project = small(tmp_path, files, shared)
    assert "2 done, 0 failed" in project.sweep("-S", "x=3,4")
    assert "1 done, 0 failed" in project.sweep("-S", "x=5", "--clones", f"{tmp_path}/new")
    assert len((tmp_path / "ran").read_text().split()) <= 2
    said = project.sweep("-S", "prepare.size=5,6,7", "--metric=-a/score")
    assert re.search(r"^The best: 5 sweep-\w+ \(prepare.size=5\)", said, re.M)
    rows = [row for row in project.rows() if row.data.params["x"] == "2"]
    assert sorted(row.data.metrics["a/score"] for row in rows) == [5, 6, 7]
    assert len({row.data.tags["md5.made.txt"] for row in rows}) == 3


def test_foreach(shared: Shared, tmp_path: Path) -> None:
    """Each item of a foreach is a row of the trial; the best of them is the trial's metric."""
    item = stage("exec python score.py ${key}.json ${x} ${item}", "${key}", "x")
    dvc = {"stages": {"a": {"foreach": "${offsets}", "do": item}}}
    params = {"x": 0, "offsets": {"red": 5, "blue": 7}}
    project = small(tmp_path, {"dvc.yaml": dvc, "params.yaml": params}, shared)
    said = project.sweep("-S", "x=1,2", "--metric=-a/score")
    assert re.search(r"^The best: 5 sweep-\w+ \(x=2\)", said, re.M)
    rows = check(project, said, 2, 4)
    assert values(rows, "x", "key") == [(x, key) for x in "12" for key in ("blue", "red")]


def test_search(shared: Shared, tmp_path: Path) -> None:
    """A search whose driver was killed goes on, with whole numbers in any params file.

    It ends with one row for each point; then a larger one runs what is new.
    """
    pytest.importorskip("optuna", reason="not installed: the extra `cluster` (make cluster-setup)")
    own = stage("exec python score.py a.json ${x} ${data.y}", "a", "x", {"more.toml": ["data.y"]})
    dvc = {"vars": ["more.toml"], "stages": {"a": own}}
    project = small(tmp_path, {"dvc.yaml": dvc, "more.toml": "[data]\ny = 3\n"}, shared)
    search = ["-S", "more.toml:data.y=interval(1,9)", "-S", "x=2", "--metric=-a/score", "-n", "4"]
    process = project.start(*search)
    wait_until(project.experiments, process)
    process.kill()
    process.communicate()
    said = project.sweep(*search)
    assert re.search(r"^search-\w+: trials of commit \w{7}, [123] found, [123] new$", said, re.M)
    points = values(check(project, said, 4, 4), "more.data.y")
    assert len({*points}) == 4
    assert all(y in "123456789" for (y,) in points)
    assert "5 done, 0 failed" in project.sweep(*search[:-1], "5")
    assert len(project.experiments()) == 5


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
    """What a node with a full disk fails is told with its place, and done by the other one."""
    project = writing(tmp_path, shared)
    with small_disk(shared.folder / "node-0" / tmp_path.name, "2m") as disk:
        said = project.sweep("-S", "x=1,2,3,4")
    check(project, said, 4, 4)
    assert re.search(
        rf"\(x=\d\) failed on \S+ in .* s, and is tried again: .*No space left.*{disk}", said
    )
    retried = re.findall(r"^(sweep-\w+) .* and is tried again", said, re.M)
    assert len({*retried}) == len(retried)  # none twice


def test_full_remote(shared: Shared, tmp_path: Path) -> None:
    """A full remote is told with its cause and place; when it has room, no stage runs again."""
    project = writing(tmp_path, shared)
    with small_disk(tmp_path / "files", "2m") as disk, patch("dvc_mlflow.sweep.driver._TRIES", 1):
        said = project.sweep("-S", "x=1", check=False)
        full = rf"^failed: sweep-\w+ \(x=1\): .*DVC remote 'files' \({disk}\): No space left on"
        assert re.search(full, said, re.M), said
        assert project.experiments() == []
        n = len((tmp_path / "ran").read_text())
        subprocess.run(["mount", "-o", "remount,size=20m", disk], check=True)
        assert "1 done, 0 failed" in project.sweep("-S", "x=1")
    assert n <= 2  # the nodes share no cache
    assert len((tmp_path / "ran").read_text()) == n


def test_lost_outputs(shared: Shared, tmp_path: Path) -> None:
    """An experiment whose outputs the DVC remote lacks is named, and runs again.

    Here a trial loses them as soon as it has pushed, as where the remote is made anew.
    """
    project = writing(tmp_path, shared)
    hook = project.remote / "hooks/post-receive"
    hook.write_text(f"#!/bin/sh\nrm -r {tmp_path}/files/files\n")
    hook.chmod(0o755)
    said = project.sweep("-S", "x=1", check=False)
    place = f"the DVC remote 'files' ({tmp_path}/files)"
    assert re.search(rf"^failed: sweep-\w+ \(x=1\): {re.escape(place)} lacks outputs", said, re.M)
    assert project.rows() == []
    hook.unlink()
    shutil.rmtree(shared.folder / "node-0" / tmp_path.name, ignore_errors=True)
    shutil.rmtree(shared.folder / "node-1" / tmp_path.name, ignore_errors=True)
    said = project.sweep("-S", "x=1,2")
    assert re.search(" 0 found, 2 new$", said, re.M)
    check(project, said, 2, 2)
    assert (tmp_path / "ran").read_text() == "..."
    assert re.search(" 2 found, 0 new$", project.sweep("-S", "x=1,2"), re.M)


def test_other_remote(shared: Shared, tmp_path: Path) -> None:
    """What a node fails at which the remote's folder is another, the others do."""
    project, other = small(tmp_path, on=shared), tmp_path / "other"
    other.mkdir()
    start = f"mount --bind {other} {tmp_path}/files && exec ray start --block --num-cpus 2"
    command = ["unshare", "-m", "sh", "-c", f"{start} --address {shared.cluster.address}"]
    own = environment(SCRATCH=f"{tmp_path}/scratch")
    process = subprocess.Popen(command, env=own, stdout=subprocess.DEVNULL, start_new_session=True)
    try:
        wait_until(lambda: shared.n_cpus() == 4, process)
        said = project.sweep("-S", "x=1,2,3,4")
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait()
    check(project, said, 4, 4)
    why = (
        f"DVC remote 'files' ({tmp_path}/files): not that of the driver; is its disk mounted here?"
    )
    assert f"and is tried again: {why}" in said
    assert not [*other.iterdir()]


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
    said = project.sweep("-S", "x=1", check=False)
    assert re.search(r"^sweep-\w+ \(x=1\) failed on \S+ in [\d.]+ s: .*raw", said, re.M)
    project.dvc("push")
    assert "1 done, 0 failed" in project.sweep("-S", "x=1", "--metric=-a/score")


def test_hanging_trial(shared: Shared, tmp_path: Path) -> None:
    """A trial that hangs is ended with its processes after the timeout, and has no row."""
    project = small(tmp_path, HANGING, shared)
    said = project.sweep("-S", "x=1", "--timeout", "6", check=False)
    assert re.search(r"^sweep-\S+ \(x=1\) failed on .*: ended after 6 s \(--timeout\)", said, re.M)
    assert project.stages() == []
    assert project.rows() == []


def test_interrupted(shared: Shared, tmp_path: Path) -> None:
    """Ctrl-C ends the trials on every node within seconds, also stages that ignore SIGTERM."""
    project = small(tmp_path, HANGING, shared)
    process = project.start("-S", "x=1,2")
    wait_until(lambda: len(project.stages()) >= 2, process)
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    said = process.communicate()[0]
    assert process.returncode == 130, said
    assert said.splitlines()[-1].startswith("dvc-mlflow: stopped; ")
    assert "Traceback" not in said
    while project.stages():
        time.sleep(0.1)
    assert time.monotonic() - began < 10
    assert project.rows() == []


def test_no_such_metric(shared: Shared, tmp_path: Path) -> None:
    """A metric that no stage has is refused at the first result, and that is kept."""
    project = small(tmp_path, on=shared)
    said = project.sweep("-S", "x=1", "--metric=a/other", check=False)
    line = "dvc-mlflow: --metric: must be one of a/score; received 'a/other'"
    assert said.splitlines()[-1] == line
    again = project.sweep("-S", "x=1", "--metric=a/other", check=False)
    assert again.splitlines() == [line]


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


def test_stage_killed(shared: Shared, tmp_path: Path) -> None:
    """A trial is tried again if a signal ended its stage, as when the node's memory is used up."""
    once = f"import os, signal\nif not os.path.exists('{tmp_path}/once'):\n"
    once += f"    os.mkdir('{tmp_path}/once')\n    os.kill(os.getpid(), signal.SIGKILL)\n"
    project = small(tmp_path, {"score.py": once + SCORE}, shared)
    said = project.sweep("-S", "x=1")
    assert re.search(r" and is tried again: .*score\.py a\.json 1 0, exited with -9 ", said)
    check(project, said, 1, 1)


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
    node = shared.add_node(num_cpus=2, num_gpus=2)
    try:
        assert "2 done, 0 failed" in project.sweep("-S", "x=1,2", "--gpus", "1")
        for option in ("--gpus", "--cpus"):
            said = project.sweep("-S", "x=3", option, "3", check=False)
            line = f"dvc-mlflow: {option}: the largest node has 2; received 3"
            assert said.splitlines()[-1] == line
        nowhere = ("sweep", "-S", "x=3", "--address", "127.0.0.1:1")
        line = Repository(project.path).tool(*nowhere).error
        assert line.startswith("dvc-mlflow: Ray at 127.0.0.1:1: [Errno 111] Connection refused")
    finally:
        shared.cluster.remove_node(node)
    assert sorted(row.data.metrics["a/first"] for row in project.rows()) == [0, 1]


WAITS = "import os, time\nwhile not os.path.exists('{}/go'):\n    time.sleep(0.1)\n"
"""The begin of a script that waits for a file."""


def waiting(path: Path, on: Shared) -> Project:
    """Return a project whose stage does not end before the file `go` is there."""
    return small(path, {"score.py": WAITS.format(path) + SCORE}, on)


def test_server_away(shared: Shared, server: TrackingServer, up: ExitStack, tmp_path: Path) -> None:
    """While the tracking server is away no trial fails; the same command adds the rows."""
    project = waiting(tmp_path, shared)
    process = project.start("-S", "x=1,2")
    wait_until(lambda: len(project.stages()) == 2, process)
    up.close()
    try:
        (tmp_path / "go").touch()
        said = process.communicate()[0]
    finally:
        up.enter_context(server.up())
    assert process.returncode == 1
    assert "Traceback" not in said
    assert len(project.experiments()) == 2
    said = project.sweep("-S", "x=1,2")
    assert re.search(" 2 found, 0 new$", said, re.M)
    check(project, said, 2, 2)


@pytest.mark.parametrize("how", ["killed", "vanished"])
def test_node(how: str, shared: Shared, tmp_path: Path) -> None:
    """Another node runs what a node had begun that was killed, or no longer answers, and once.

    With its worker, a stage ends.
    """
    project = waiting(tmp_path, shared)
    # Ray itself asks workers each five minutes whether they are there; asked more often, they fail.
    often = {f"RAY_grpc_client_keepalive_{each}_ms": "10000" for each in ("time", "timeout")}
    process = project.start("-S", "x=1,2", **often)
    first, _ = wait_until(lambda: (found := project.stages())[1:] and found, process)
    node = shared.node_of(first)
    own = [psutil.Process(p.pid) for _, p in node.live_processes()]
    those = {*own, *(child for each in own for child in each.children(recursive=True))}
    if how == "vanished":
        for each in those:
            each.suspend()
    else:
        shared.cluster.remove_node(node, allow_graceful=False)
        psutil.wait_procs([first], timeout=10)
        assert not first.is_running()
    (tmp_path / "go").touch()
    began = time.monotonic()
    said = process.communicate()[0]
    assert time.monotonic() - began < 90, said
    for each in those if how == "vanished" else ():
        with suppress(psutil.NoSuchProcess):
            each.kill()
    if how == "vanished":
        shared.cluster.remove_node(node, allow_graceful=False)
    shared.add_node()
    assert process.returncode == 0, said
    assert "state-dump" not in said
    check(project, said, 2, 2)
