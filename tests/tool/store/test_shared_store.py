"""One store that several clones, containers and machines share."""

import os
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path
from threading import Event

import pytest
from sqlalchemy import Engine, event

from dvc_mlflow import processes
from dvc_mlflow.pipeline.tags import CLONE, HOST, PROCESS, SYSTEM
from dvc_mlflow.store.store import Store
from support.clone import Clone
from support.pipelines import Repository, served
from support.rebuilding import started
from support.stores import rows_of

pytestmark = [
    pytest.mark.pipeline,
    pytest.mark.filterwarnings("ignore"),  # warnings from MLflow
]


@pytest.fixture(scope="module")
def made() -> Repository:
    """A pipeline with a model that has run once, for all tests: `copy` it."""
    return served()


def test_whose_rows_are_ended(made: Repository, tmp_path: Path) -> None:
    """The tool ends the rows of dead processes of its own clone, and no others, whatever tags say.

    Processes of another container or machine cannot be seen; those before a restart are dead.
    """
    project = made.copy(tmp_path / "project")
    project.record()
    (result,) = project.rows()
    own = {key: result.data.tags[key] for key in (HOST, CLONE, SYSTEM, PROCESS)}
    boot, container = own[SYSTEM].split()
    pid, at = processes.process(os.getpid()).split("@")
    own[PROCESS] = "1@1"
    expected = [
        ("KILLED", own),
        ("KILLED", own | {SYSTEM: f"another-boot {container}"}),
        ("KILLED", own | {PROCESS: f"{pid}@1"}),
        ("KILLED", own | {PROCESS: f"{'9' * 5000}@1"}),
        ("RUNNING", own | {PROCESS: f"{pid}@{at}"}),
        ("RUNNING", own | {SYSTEM: f"{boot} pid:[1]"}),
        ("RUNNING", own | {HOST: "another"}),
        ("RUNNING", own | {CLONE: "another"}),
        ("RUNNING", own | {PROCESS: "abc"}),
        ("RUNNING", own | {PROCESS: "-5@1"}),
        ("RUNNING", {CLONE: own[CLONE]}),
        ("RUNNING", {}),
    ]
    client, experiment = project.client, result.info.experiment_id
    ids = [client.create_run(experiment, tags=tags).info.run_id for _, tags in expected]
    assert project.record().out.startswith("nothing to do")
    found = [client.get_run(run_id).info.status for run_id in ids]
    assert found == [status for status, _ in expected]


def test_tag_at_once(tmp_path: Path) -> None:
    """If another process adds the tag that is about to be added, MLflow's call is tried again."""
    Clone(tmp_path).git("init", "-q")
    store, adding = Store.open(tmp_path, "tagged"), Event()

    def hear(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if statement.startswith("INSERT INTO experiment_tags"):
            adding.set()

    with ThreadPoolExecutor() as pool, closing(sqlite3.connect(tmp_path / "mlflow.db")) as other:
        other.execute("BEGIN IMMEDIATE")  # the call sees no such tag, and waits to add it
        event.listen(Engine, "before_cursor_execute", hear)
        waiting = pool.submit(store.tag, "key", "ours")
        assert adding.wait(60)
        event.remove(Engine, "before_cursor_execute", hear)
        theirs = ("key", "theirs", store.experiment_id)
        other.execute("INSERT INTO experiment_tags VALUES (?, ?, ?)", theirs)
        other.commit()
        waiting.result()
    assert store.client.get_experiment(store.experiment_id).tags["key"] == "ours"


@pytest.mark.rest
def test_clones_at_once(made: Repository, tmp_path: Path) -> None:
    """Clones that record at the same time, with the same new data sets, all get their rows."""
    address = f"sqlite:///{tmp_path}/rows.db"
    clones = [made.copy(tmp_path / name) for name in ("one", "two")]
    assert clones[0].tool("record", MLFLOW_TRACKING_URI=address).status == 0
    for i, clone in enumerate(clones):
        clone.set({"rate": 5, "a": i})
        clone.dvc("repro", "-q")
    more = {"MLFLOW_TRACKING_URI": address, "MLFLOW_EXPERIMENT_NAME": "ours"}
    with ExitStack() as opened:
        records = [opened.enter_context(started(clone, **more)) for clone in clones]
        said = [record.communicate() for record in records]
    assert [record.returncode for record in records] == [0, 0], said
    *new, _ = rows_of(address)
    assert {row.info.status for row in new} == {"FINISHED"}
    assert sorted(row.data.params["a"] for row in new) == ["0", "1"]
    for row in new:
        assert "dvc-mlflow.lock.a" in row.data.tags
        assert [i.dataset.name for i in row.inputs.dataset_inputs] == ["model.txt"]
