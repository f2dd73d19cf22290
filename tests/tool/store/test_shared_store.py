"""One store that several clones, containers and machines share."""

import os
from contextlib import ExitStack
from pathlib import Path

import pytest
from mlflow import MlflowClient

from dvc_mlflow import processes
from dvc_mlflow.pipeline.row import md5_of_text
from dvc_mlflow.pipeline.tags import CLONE, LIVE, LOCK, PROCESS
from support.clone import Clone
from support.following import started
from support.locked import locked, trained
from support.pipelines import Repository, served, train
from support.rebuilding import rows_of
from support.servers import serving

pytestmark = pytest.mark.pipeline


@pytest.fixture(scope="module")
def made() -> Repository:
    """A pipeline with a model that has run once, for all tests: `copy` it."""
    return served()


def test_whose_rows_are_ended(project: Repository) -> None:
    """The tool ends the rows of dead processes of its own clone, and no others, whatever tags say.

    Processes of another container or machine cannot be seen; those before a restart are dead.
    """
    project.record()
    (result,) = project.rows()
    mine, (host, boot, container, _) = result.data.tags[CLONE], result.data.tags[PROCESS].split()
    pid, at = processes.process(os.getpid()).split("@")
    expected = [
        ("KILLED", {CLONE: mine, PROCESS: f"{host} {boot} {container} 1@1"}),
        ("KILLED", {CLONE: mine, PROCESS: f"{host} another-boot {container} {pid}@{at}"}),
        ("KILLED", {CLONE: mine, PROCESS: f"{host} {boot} {container} {pid}@1"}),
        ("KILLED", {CLONE: mine, PROCESS: f"{host} {boot} {container} {'9' * 5000}@1"}),
        ("RUNNING", {CLONE: mine, PROCESS: f"{host} {boot} {container} {pid}@{at}"}),
        ("RUNNING", {CLONE: mine, PROCESS: f"{host} {boot} pid:[1] 1@1"}),
        ("RUNNING", {CLONE: mine, PROCESS: f"another {boot} {container} 1@1"}),
        ("RUNNING", {CLONE: "another", PROCESS: f"{host} {boot} {container} 1@1"}),
        ("RUNNING", {CLONE: mine, PROCESS: f"{host} {boot} {container} abc"}),
        ("RUNNING", {CLONE: mine, PROCESS: "1@1"}),
        ("RUNNING", {CLONE: mine}),
        ("RUNNING", {}),
    ]
    client, experiment = project.client, result.info.experiment_id
    ids = [client.create_run(experiment, tags=tags).info.run_id for _, tags in expected]
    assert project.record().out.startswith("nothing to do")
    found = [client.get_run(run_id).info.status for run_id in ids]
    assert found == [status for status, _ in expected]


@pytest.mark.rest
def test_clones_at_once(made: Repository, tmp_path: Path) -> None:
    """Clones in folders of other names share one experiment, and each result is in it once.

    Those that record at the same time, with the same new data sets, all get their rows.
    """
    address = f"sqlite:///{tmp_path}/rows.db"
    clones = [made.copy(tmp_path / name) for name in ("one", "two")]
    for clone in clones:
        clone.git("remote", "add", "origin", "git@example.org:us/flowers.git")
        assert clone.tool("record", "--all", MLFLOW_TRACKING_URI=address).status == 0
    (row,) = rows_of(address)
    experiment = MlflowClient(address).get_experiment(row.info.experiment_id)
    assert experiment.name == "us/flowers"
    for i, clone in enumerate(clones):
        clone.set({"rate": 5, "a": i})
        clone.dvc("repro", "-q")
    more = {"MLFLOW_TRACKING_URI": address, "MLFLOW_EXPERIMENT_NAME": "ours"}
    with ExitStack() as opened:
        command = ("dvc-mlflow", "record")
        records = [opened.enter_context(started(clone, *command, **more)) for clone in clones]
        assert [record.wait(120) for record in records] == [0, 0]
    *new, _ = rows_of(address)
    assert {row.info.status for row in new} == {"FINISHED"}
    assert sorted(row.data.params["a"] for row in new) == ["0", "1"]
    for row in new:
        assert f"{LOCK}a" in row.data.tags
        assert [i.dataset.name for i in row.inputs.dataset_inputs] == ["model.txt"]


@pytest.mark.rest
def test_results_at_once(tmp_path: Path) -> None:
    """Of two results that a server gets at once, one becomes what a dead follower had begun."""
    project = locked(tmp_path / "project", {"train": train("raw.txt")}, files=trained())
    project.commit("One")
    project.again({"raw.txt": "2\n", **trained(1, "2\n")})
    project.commit("Another one with the same params")
    clone, mine = processes.clone(project.path), processes.full_name(os.getpid()).split(" ")
    dead = {CLONE: clone, PROCESS: " ".join([*mine[:3], "1@1"]), LIVE: md5_of_text("\ntrain")}
    store = f"sqlite:///{tmp_path}/rows.db"
    with serving(Clone(tmp_path), "server", "--backend-store-uri", store) as address:
        client = MlflowClient(address)
        experiment = client.create_experiment(project.path.name)
        begun = client.create_run(experiment, 1000, dead).info.run_id
        client.log_param(begun, "rate", 1)
        assert project.tool("record", "--all", MLFLOW_TRACKING_URI=address).status == 0
        rows = client.search_runs([experiment])
    assert begun in {row.info.run_id for row in rows}
    assert [row.info.status for row in rows] == ["FINISHED"] * 2
    assert len({row.data.tags[f"{LOCK}train"] for row in rows}) == 2
