"""A result has the same row whatever the order of runs; no row says what never ran."""

import itertools
import json
from dataclasses import replace
from pathlib import Path

import pytest

from support.locked import Locked, Table, evaluated, locked, read, row
from support.pipelines import TWO_EVALUATIONS, evaluate, finished, results, train

pytestmark = pytest.mark.filterwarnings("ignore")  # warnings from MLflow


@pytest.fixture
def project(tmp_path: Path) -> Locked:
    """A pipeline with two evaluations of one model."""
    return locked(tmp_path / "project", TWO_EVALUATIONS, files=evaluated())


@pytest.fixture
def table() -> Table:
    """A table without rows."""
    return Table()


@pytest.mark.pipeline
def test_one_row(tmp_path: Path) -> None:
    """A model and its evaluations are one row; recording again adds nothing, run anew or not.

    A row in MLflow's trash stays there until MLflow restores it; --dry-run only reports.
    """
    project = finished(tmp_path / "project", TWO_EVALUATIONS)
    assert "would add" in project.record("--dry-run").out
    assert project.rows() == []
    assert "added" in project.record().out
    (row,) = project.rows()
    assert results(row) == {"train", "a", "b"}
    assert row.info.status == "FINISHED"
    assert row.data.metrics == {"train/loss": 0.25, "a/score": 1, "b/score": 1}
    nothing = "nothing to do: MLflow has this result"
    project.dvc("repro", "-q", "-f")
    assert project.record("--dry-run").out.startswith(nothing)
    assert project.record().out.startswith(nothing)
    run_id = row.info.run_id
    project.client.delete_run(run_id)
    trash = f"left in MLflow's trash: run {run_id} (train, a, b); MLflow restores it\n"
    assert (project.record().out, project.rows()) == (trash, [])
    project.client.restore_run(run_id)
    assert project.record().out.startswith(nothing)
    assert [run.info.run_id for run in project.rows()] == [run_id]


def test_changed_code(project: Locked, table: Table) -> None:
    """A corrected evaluation is a new row and the old one stays; the same bytes are no new row."""
    table.record(project)
    for score in (1, 9):
        stage = {**evaluate("a"), "cmd": f"echo '{{\"score\": {score}}}' > a.json"}
        dvc_yaml = json.dumps({"stages": {**TWO_EVALUATIONS, "a": stage}})
        project.again({"dvc.yaml": dvc_yaml, **evaluated(a=score)})
        table.record(project)
    old, new = table.rows
    assert (old.metrics["a/score"], new.metrics["a/score"]) == (1, 9)
    assert {*old.digests} == {*new.digests} == {"train", "a", "b"}
    assert old.params == new.params


def test_only_what_ran_together(project: Locked, table: Table) -> None:
    """After A1 B1, A2 B1 and A1 B2, no row has A2 B2."""
    for params in ({"a": 1, "b": 1}, {"a": 2, "b": 1}, {"a": 1, "b": 2}):
        project.again(evaluated(**params), params)
        table.record(project)
    found = [(row.metrics["a/score"], row.metrics["b/score"]) for row in table.rows]
    assert sorted(found) == [(1, 1), (1, 2), (2, 1)]


def test_stage_by_stage(tmp_path: Path, project: Locked) -> None:
    """Results that are recorded one by one join one row, in any order."""
    whole = replace(row(project), time=0)
    start = locked(tmp_path / "one", TWO_EVALUATIONS, files=evaluated(), only=["prepare", "train"])
    for order in itertools.permutations(["train", "a", "b"]):
        each, table = start.copy(tmp_path / "-".join(order)), Table()
        for stage in order:
            each.ran(stage)
            table.record(each)
        assert [replace(own, time=0) for own in table.rows] == [whole], order


def test_frozen_stage(project: Locked) -> None:
    """Below a frozen stage results are recorded, whatever has changed above it."""
    stages = {**TWO_EVALUATIONS, "train": {**train(), "frozen": True}}
    project.write({"dvc.yaml": json.dumps({"stages": stages}), "raw.txt": "2\n"})
    project.again({"data.txt": "2\n", **evaluated(a=2)}, {"a": 2}, "prepare", "a", "b")
    found = row(project)
    assert found.metrics == {"train/loss": 0.25, "a/score": 2, "b/score": 1}
    assert found.params["rate"] == "1"


def test_stale_stage(project: Locked, table: Table) -> None:
    """Below a stale stage nothing is recorded, and a reason says so; no row mixes params."""
    project.again(evaluated(rate=2), {"rate": 2}, "train")
    table.record(project)
    (found,) = table.rows
    assert ({*found.digests}, found.params) == ({"train"}, {"rate": "2"})
    reason = "it has read a different model.txt than train has written"
    assert read(project).reasons == {"a": reason, "b": reason}
    project.ran()
    table.record(project)
    (found,) = table.rows
    assert {*found.digests} == {"train", "a", "b"}
    project.again({"raw.txt": "2\n", "data.txt": "2\n"}, {}, "prepare")
    late = "stage train, upstream of it, must run first"
    why = "it has read a different data.txt than prepare has written"
    assert (read(project).rows, read(project).reasons) == ([], {"train": why, "a": late, "b": late})
    (project.path / "dvc.lock").unlink()  # before the first `dvc repro`
    assert read(project).rows == []
    assert read(project).reasons["train"] == "dvc.lock has no result of it"
