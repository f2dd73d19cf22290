"""`restore`, `forget` and `promote` take a row by name, digits, DVC experiment or run id."""

from pathlib import Path

import pytest

from dvc_mlflow.errors import ToolError
from dvc_mlflow.pipeline.tags import EXPERIMENT, LOCK
from dvc_mlflow.store.runs import read_run
from support.locked import Locked, evaluated, locked
from support.pipelines import evaluate, train

pytestmark = pytest.mark.pipeline


@pytest.fixture
def project(tmp_path: Path) -> Locked:
    """A pipeline with three rows: two of one training, and one in another MLflow experiment."""
    own = {**evaluate("b", "raw.txt"), "meta": {"mlflow": {"experiment": "own"}}}
    stages = {"train": train("raw.txt"), "a": evaluate("a"), "own": own}
    made = locked(tmp_path / "project", stages, files=evaluated())
    made.add_store()
    made.commit()
    made.record()
    made.again(evaluated(a=2), {"a": 2})
    made.record()
    return made


def test_called(project: Locked) -> None:
    """A name is enough, in any experiment, or four digits of it, unless several rows have them.

    A DVC experiment's name is enough, too, but for a row with that name.
    """
    (own,) = [row for row in project.rows() if f"{LOCK}own" in row.data.tags]
    first, second = [row for row in project.rows() if f"{LOCK}train" in row.data.tags]
    client, former = project.client, own.info.run_name or ""
    assert former[:7] == own.data.tags[f"{LOCK}own"][:7]
    odd = f'it\'s "mine" 100% {former}'
    client.update_run(own.info.run_id, name=odd)
    client.set_tag(second.info.run_id, EXPERIMENT, "wide")
    expected = {odd: own, former: own, "wide": second}
    for run in (first, second, own):
        digits = former[:7] if run is own else (run.info.run_name or "")[:7]
        expected |= {run.info.run_id: run, **{digits[:n]: run for n in (4, 5, 6, 7)}}
        with pytest.raises(ToolError, match="four or more of its digits"):
            read_run(project.path, digits[:3])
    for name, run in expected.items():
        assert read_run(project.path, name).info.run_id == run.info.run_id, name
    client.update_run(first.info.run_id, name="wide")
    assert read_run(project.path, "wide").info.run_id == first.info.run_id
    shared = first.data.tags[f"{LOCK}train"][:5]
    assert shared == second.data.tags[f"{LOCK}train"][:5]
    with pytest.raises(ToolError, match=f"'{shared}': 2 rows are called so: "):
        read_run(project.path, shared)


NONE = ["", "nothing", "0000000", "%", "' or '1' = '1", "\\", "x" * 9000, "../x", "x; touch hacked"]


def test_refused(project: Locked) -> None:
    """If no row or several rows are called so, one line says what names a row, or names them."""
    rule = "ROW must be a row's name, four or more of its digits, its run id or its experiment"
    for name in [*NONE, "\x1b[31m"]:
        said = project.tool("restore", name)
        assert (said.status, said.out, said.error.count("\n")) == (1, "", 1)
        assert rule in said.error
        assert "\x1b" not in said.error
    assert not (project.path / "hacked").exists()
    rows = [row for row in project.rows() if f"{LOCK}train" in row.data.tags]
    for row in rows:
        project.client.update_run(row.info.run_id, name="same")
    for command in ("restore", "forget", "promote"):
        said = project.tool(command, "same")
        assert (said.status, said.out, said.error.count("\n")) == (1, "", 1)
        assert said.error.startswith("dvc-mlflow: 'same': 2 rows are called so: 'same' (")
        assert all(row.info.run_id in said.error for row in rows)
