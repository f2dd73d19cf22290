"""Rows of version 2.0.0, whose private tags had other keys, are found and restored."""

from pathlib import Path

import pytest

from dvc_mlflow.pipeline.tags import CLONE, HOST, PRIVATE, PROCESS, SYSTEM, known_keys
from support.locked import evaluated, locked
from support.pipelines import TWO_EVALUATIONS
from support.restoring import restored

pytestmark = [
    pytest.mark.pipeline,
    pytest.mark.filterwarnings("ignore"),  # warnings from MLflow
]


def test_rows_of_2_0_0(tmp_path: Path) -> None:
    """Such a row is not recorded again, can be restored, and ends if its process has ended."""
    project = locked(tmp_path / "project", TWO_EVALUATIONS, files=evaluated())
    project.commit("The results")
    project.add_store()
    project.record()
    (run,) = project.rows()
    client, own = project.client, {}
    for key, value in run.data.tags.items():
        if key.startswith(PRIVATE):
            _, old = known_keys(key)
            client.delete_tag(run.info.run_id, key)
            client.set_tag(run.info.run_id, old, value)
            own[key] = old, value
    assert {CLONE, HOST, PROCESS, SYSTEM} <= own.keys()
    dead = dict(own[key] for key in (CLONE, HOST, PROCESS, SYSTEM)) | {"process": "1@1"}
    running = client.create_run(run.info.experiment_id, tags=dead).info.run_id
    assert project.record().out.startswith("nothing to do: MLflow has this result\n")
    assert project.record("--all").out.startswith("nothing to do")
    assert client.get_run(running).info.status == "KILLED"
    client.delete_run(running)
    (found,) = project.rows()
    assert PRIVATE not in "".join(found.data.tags)
    restored(project, found)
    project.again(evaluated(a=2), {"a": 2})
    project.record()
    assert len(project.rows()) == 2
