"""Whatever fails on a cluster, no trial is lost, none runs twice, and no row stays RUNNING."""

import os
import re
import signal
import time
from collections.abc import Iterator
from contextlib import suppress

import psutil
import pytest

from support.services import MISSING
from support.team import Team, read_until, running_team, trainings, wait_until

pytestmark = [
    pytest.mark.pipeline,
    pytest.mark.cluster,
    pytest.mark.filterwarnings("ignore"),  # warnings from Ray and MLflow
    pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}"),
]


@pytest.fixture(scope="module")
def team(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Team]:
    """The services for all tests of this module, which run in order."""
    with running_team(tmp_path_factory.mktemp("team")) as team:
        yield team


def test_node_killed(team: Team) -> None:
    """Another node runs what a killed node had begun, once; no row is left running."""
    before = len(team.experiments())
    process = team.start("train.seed=1,2")
    training = wait_until(lambda: trainings(team), process)[0]
    training.suspend()  # so that it cannot end before its node
    node = team.node_of(training)
    team.cluster.remove_node(node, allow_graceful=False)
    said = read_until(process, "will be retried")
    assert "the node it was running on is dead" in said.splitlines()[-1]
    training.kill()
    said += process.communicate()[0]
    assert process.returncode == 0, said
    assert "state-dump" not in said
    assert len(team.experiments()) == before + 2
    for seed in (1, 2):
        rows = [row for row in team.rows("train.seed", seed) if row.info.status == "FINISHED"]
        assert len(rows) == 1
        assert not [row for row in team.rows("train.seed", seed) if row.info.status == "RUNNING"]
    team.add_node()


def test_node_vanishes(team: Team) -> None:
    """A node that stops answering, as when its network is gone, is noticed by the head."""
    process = team.start("train.seed=9")
    training = wait_until(lambda: trainings(team), process)[0]
    node = team.node_of(training)
    own = [psutil.Process(p.pid) for _, p in node.live_processes()]
    there = {*own, *(child for parent in own for child in parent.children(recursive=True))}
    for one in there:
        one.suspend()
    began = time.monotonic()
    said = read_until(process, "will be retried")
    # Ray takes 39 s to declare it dead; its task would fail after minutes.
    assert time.monotonic() - began < 90, said
    team.cluster.remove_node(node, allow_graceful=False)
    for one in there:
        with suppress(psutil.NoSuchProcess):
            one.kill()
    rest, _ = process.communicate()
    assert process.returncode == 0, rest
    assert "1 done, 0 failed" in rest
    team.add_node()


def test_remote_away(team: Team) -> None:
    """A trial that cannot push tries four times, then on its node again, and no stage runs again.

    Another node has neither the results nor a run cache with them.
    """
    git, away = team.folder / "git", team.folder / "away"
    process = team.start("train.seed=6", clones="remote")
    wait_until(lambda: trainings(team), process)
    git.rename(away)
    said = read_until(process, "will be retried")
    away.rename(git)
    assert re.findall(r"; next try in (\d+) s$", said, re.M) == ["2", "5", "10"]
    rest = process.communicate()[0]
    assert process.returncode == 0, rest
    assert "1 done, 0 failed" in rest
    assert team.ran("remote") == [[]]
    (row,) = team.rows("train.seed", 6)
    assert row.info.status == "FINISHED"


def test_server_restarted(team: Team) -> None:
    """While the tracking server restarts, no trial fails, and each is recorded completely."""
    before = len(team.experiments())
    process = team.start("train.seed=3")
    wait_until(lambda: trainings(team), process)
    with team.server_away():
        wait_until(lambda: len(team.experiments()) > before, process)
    said = process.communicate()[0]
    assert process.returncode == 0, said
    assert "1 done, 0 failed" in said
    (row,) = team.rows("train.seed", 3)
    assert row.info.status == "FINISHED"
    assert row.data.metrics.keys() >= {"train/loss", "test/accuracy"}
    assert row.data.tags.keys() >= {"dvc-mlflow.lock.train", "dvc-mlflow.lock.evaluate"}


def test_interrupted(team: Team) -> None:
    """Ctrl-C ends the trials on every node, and no row is left running."""
    process = team.start("train.epochs=1000000", "train.seed=1,2", "--name", "interrupted")
    wait_until(lambda: len(trainings(team)) == 2, process)
    process.send_signal(signal.SIGINT)
    said = process.communicate()[0]
    assert said.splitlines()[-1].startswith("dvc-mlflow: stopped; ")
    assert "Traceback" not in said
    assert not trainings(team)
    assert team.search("attributes.status = 'RUNNING'") == []


def test_unfit_nodes(team: Team) -> None:
    """A node without a disk, or with another Keras, gets no more trials; none loses a retry.

    What fails on one node for another reason, as without git, is done by another after a retry.
    """
    old, programs = team.folder / "old", team.folder / "programs"
    (old / "keras-3.12.0.dist-info").mkdir(parents=True)
    about = "Metadata-Version: 2.1\nName: keras\nVersion: 3.12.0\n"
    (old / "keras-3.12.0.dist-info" / "METADATA").write_text(about)
    programs.mkdir()
    (programs / "git").write_text("#!/bin/sh\necho no route to the git server >&2\nexit 128\n")
    (programs / "git").chmod(0o755)
    path = f"{programs}{os.pathsep}{os.environ['PATH']}"
    spoiled = [{"SCRATCH": "/dev/null"}, {"PYTHONPATH": str(old)}, {"PATH": path}]
    nodes = [team.add_node(**variables) for variables in spoiled]
    try:
        said = team.sweep("train.seed=range(30,35)")  # one for each node
    finally:
        for node in nodes:
            team.cluster.remove_node(node)
    dropped = sorted(re.findall("^.* gets no more trials: (.*)$", said, re.M))
    assert dropped[0].startswith("[Errno 20] Not a directory: '/dev/null/clones/")
    assert re.fullmatch(r"keras 3.12.0 is not 3.\S+, as at the driver", dropped[1])
    assert len(dropped) == 2
    retried = re.findall(r"^(sweep-\S+) .* will be retried in (\d+) s; (.*)$", said, re.M)
    assert len({name for name, _, _ in retried}) == len(retried) > 0  # none twice
    assert all(s == "2" and "no route to the git server" in why for _, s, why in retried)
    assert "5 done, 0 failed" in said
