"""Over two nodes, whatever fails, no trial is lost, and none has a result twice."""

import os
import re
import signal
import subprocess
import time
from contextlib import ExitStack, suppress
from pathlib import Path

import psutil
import pytest

from support.clone import environment
from support.disks import small_disk
from support.pipelines import Repository
from support.projects import (
    HANGING,
    SCORE,
    TOGETHER,
    Project,
    Shared,
    check,
    small,
    stage,
    values,
    wait_until,
    writing,
)
from support.services import MISSING, PASSWORD, TrackingServer, ssh

pytestmark = [
    pytest.mark.pipeline,
    pytest.mark.cluster,
    pytest.mark.filterwarnings("ignore"),  # warnings from Ray and MLflow
    pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}"),
]


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
            wanted = {"--gpus": "1 CPU, 3 GPU", "--cpus": "3 CPU, 0 GPU"}[option]
            line = f"dvc-mlflow: --cpus, --gpus: no node of the cluster has {wanted}"
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
    often = {f"RAY_grpc_client_keepalive_{each}_ms": "5000" for each in ("time", "timeout")}
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
