"""Over two nodes, whatever they and the server do, no trial is lost or has a result twice."""

import re
from contextlib import ExitStack, suppress
from pathlib import Path

import psutil
import pytest

from dvc_mlflow.pipeline.tags import EXPERIMENT, USER
from support.pipelines import Repository
from support.projects import (
    SCORE,
    TOGETHER,
    Project,
    Shared,
    check,
    small,
    stage,
    values,
    wait_until,
)
from support.servers import MISSING, PASSWORD, TrackingServer, ssh

pytestmark = [
    pytest.mark.pipeline,
    pytest.mark.cluster,
    pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}"),
]


@pytest.fixture(scope="module")
def client(server: tuple[TrackingServer, ExitStack]) -> dict[str, str]:
    """The variables that lead to a tracking server with users."""
    return server[0].client


def test_two_nodes(shared: Shared, tmp_path: Path) -> None:
    """Two trials run on two nodes, and leave what `dvc exp run` does, over SSH, and a row each.

    They have the inputs in the DVC remote. The server's password is in nothing that a sweep or Ray
    writes. A larger grid runs what is new.
    """
    (begun := tmp_path / "begun").mkdir()
    own = stage("exec python score.py a.json ${x} 0", "a", "x", outs=["model.txt"])
    own["deps"] += ["raw.csv"]
    script = f"{TOGETHER.format(folder=begun)}{SCORE}\nopen('model.txt', 'w').write(str(x))"
    project = small(tmp_path, {"dvc.yaml": {"stages": {"a": own}}, "score.py": script}, shared)
    (project.path / "raw.csv").write_text("1")
    project.dvc("add", "raw.csv")
    with ssh(tmp_path / "ssh") as (port, key):
        address = f"ssh://127.0.0.1:{port}{tmp_path}/files"
        project.dvc("remote", "modify", "files", "url", address)
        project.dvc("remote", "modify", "--local", "files", "keyfile", f"{key}")
        project.dvc("push")
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
    assert {row.data.tags[USER] for row in rows} == {"Tester"}  # the author
    assert len([*(shared.folder).glob(f"node-*/{tmp_path.name}/*/*/clone")]) == 2
    logs = [*shared.folder.rglob("sweep-*.log"), *shared.logs.rglob("*.*")]
    assert len(logs) > 10
    texts = [said, again, *(log.read_text(errors="replace") for log in logs)]
    assert not [text for text in texts if PASSWORD in text]
    name = next(row.data.tags[EXPERIMENT] for row in rows if row.data.params["x"] == "3")
    project.dvc("exp", "run", "-n", "plain", "-S", "x=3")
    (ours,), (plain,) = (
        project.git("for-each-ref", "--format=%(tree)", f"refs/exps/*/*/{n}").split()
        for n in (name, "plain")
    )
    assert ours == plain


def test_no_such_node(shared: Shared, tmp_path: Path) -> None:
    """A trial that no node can run, and a cluster that is not there, are refused at once."""
    project = small(tmp_path, on=shared)
    for option, wanted in {"--gpus": "1 CPU, 3 GPU", "--cpus": "3 CPU, 0 GPU"}.items():
        said = project.sweep("-S", "x=3", option, "3", check=False)
        line = f"dvc-mlflow: --cpus, --gpus: no node of the cluster has {wanted}"
        assert said.splitlines()[-1] == line
    nowhere = ("sweep", "-S", "x=3", "--address", "127.0.0.1:1")
    line = Repository(project.path).tool(*nowhere, **shared.client).error
    assert line.startswith("dvc-mlflow: Ray at 127.0.0.1:1: [Errno 111] Connection refused")


WAITS = "import os, time\nwhile not os.path.exists('{}/go'):\n    time.sleep(0.1)\n"
"""The begin of a script that waits for a file."""


def waiting(path: Path, on: Shared) -> Project:
    """Return a project whose stage does not end before the file `go` is there."""
    return small(path, {"score.py": WAITS.format(path) + SCORE}, on)


def test_server_away(
    shared: Shared, server: tuple[TrackingServer, ExitStack], tmp_path: Path
) -> None:
    """While the tracking server is away no trial fails; the same command adds the rows."""
    project, (tracking, up) = waiting(tmp_path, shared), server
    process = project.start("-S", "x=1,2")
    wait_until(lambda: len(project.stages()) == 2, process)
    up.close()
    try:
        (tmp_path / "go").touch()
        said = process.said()
    finally:
        up.enter_context(tracking.up())
    assert process.poll() == 1
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
    both = wait_until(lambda: (found := project.stages())[1:] and found, process)
    (node,) = shared.cluster.worker_nodes
    (first,) = (stage for stage in both if shared.is_of(stage, node))
    own = [psutil.Process(p.pid) for _, p in node.live_processes()]
    those = {*own, *(child for each in own for child in each.children(recursive=True))}
    if how == "vanished":
        for each in those:
            each.suspend()
    else:
        shared.cluster.remove_node(node, allow_graceful=False)
        wait_until(lambda: not first.is_running())
    (tmp_path / "go").touch()
    said = process.said(300)
    if how == "vanished":
        for each in those:
            with suppress(psutil.NoSuchProcess):
                each.kill()
        shared.cluster.remove_node(node, allow_graceful=False)
    shared.add_node()
    assert process.poll() == 0, said
    assert "state-dump" not in said
    check(project, said, 2, 2)
