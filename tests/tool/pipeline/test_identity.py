"""A result has the same row whatever the order of runs; no row says what never ran."""

import itertools
import json
from dataclasses import replace
from pathlib import Path

import pytest

from support.locked import Locked, RowContent, Table, evaluated, locked, read, row
from support.pipelines import (
    TWO_EVALUATIONS,
    evaluate,
    repository,
    results,
    train,
)

pytestmark = [
    pytest.mark.filterwarnings("ignore"),  # warnings from MLflow
]


@pytest.fixture
def project(tmp_path: Path) -> Locked:
    """A pipeline with two evaluations of one model."""
    return locked(tmp_path / "project", TWO_EVALUATIONS, files=evaluated())


@pytest.fixture
def stored(project: Locked) -> Locked:
    """The same with a store."""
    project.add_store()
    return project


@pytest.fixture
def table() -> Table:
    """A table without rows."""
    return Table()


def without_time(found: RowContent) -> RowContent:
    """Return a row's content without when it was made."""
    return replace(found, time=0)


@pytest.mark.pipeline
def test_one_row(tmp_path: Path) -> None:
    """A model and its evaluations are one row; recording again adds nothing.

    A result that DVC takes from its run cache is recorded like one that ran.
    """
    stages = {**TWO_EVALUATIONS, "train": {**train()}}
    stages["train"]["cmd"] += f"; echo >> {tmp_path}/ran"
    project = repository(tmp_path / "project", stages)
    project.dvc("repro", "-q")
    project.commit("The results")
    said = project.record()
    (row,) = project.rows()
    assert results(row) == {"train", "a", "b"}
    assert row.info.status == "FINISHED"
    assert row.data.metrics == {"train/loss": 0.25, "a/score": 1, "b/score": 1}
    assert "added" in said.out
    before = project.lock
    project.dvc("repro", "-q", "-f")
    assert project.record().out.startswith("nothing to do: MLflow has this result")
    assert project.lock == before

    project.set({"rate": 2})
    project.dvc("repro", "-q")
    project.set({"rate": 3})
    project.dvc("repro", "-q")
    project.record()
    project.set({"rate": 2})
    project.dvc("repro", "-q")
    assert (tmp_path / "ran").read_text() == "\n" * 4
    project.record()
    assert [row.data.params["rate"] for row in project.rows()] == ["1", "3", "2"]


def test_corrected_evaluation(project: Locked, table: Table) -> None:
    """A corrected evaluation of the same model is a new row; the old row stays."""
    table.record(project)
    stages = {**TWO_EVALUATIONS, "a": {**evaluate("a"), "cmd": "echo '{\"score\": 9}' > a.json"}}
    project.again({"dvc.yaml": json.dumps({"stages": stages}), **evaluated(a=9)})
    table.record(project)
    old, new = table.rows
    assert (old.metrics["a/score"], new.metrics["a/score"]) == (1, 9)
    assert {*old.digests} == {*new.digests} == {"train", "a", "b"}
    assert old.params == new.params


def test_changed_code_with_the_same_bytes(project: Locked) -> None:
    """Changed code that makes the same bytes is the same result."""
    before = row(project)
    stages = {**TWO_EVALUATIONS, "a": {**evaluate("a"), "cmd": "echo '{\"score\": 1}' > a.json"}}
    project.again({"dvc.yaml": json.dumps({"stages": stages})})
    assert row(project).digests == before.digests


def test_order_of_runs(tmp_path: Path) -> None:
    """Whatever the order of runs, the table has every result, and no row is incomplete."""
    states = [(1, 1), (2, 1), (1, 2), (2, 2)]
    for order in [(3, 1, 0, 2), (0, 1, 2, 3), (2, 0, 3, 1)]:
        project, table = locked(tmp_path / f"{order}", TWO_EVALUATIONS, files=evaluated()), Table()
        for index in order:
            a, b = states[index]
            for stage in ("a", "b") if index % 2 else ("b", "a"):
                now = {f"{stage}.json": evaluated(a=a, b=b)[f"{stage}.json"]}
                project.again(now, {"a": a, "b": b}, stage)
                table.record(project)  # also between the two
        found = {(row.metrics.get("a/score"), row.metrics.get("b/score")) for row in table.rows}
        assert ({*states} - found, {pair for pair in found if None in pair}) == (set(), set()), (
            order
        )


def test_only_what_ran_together(project: Locked, table: Table) -> None:
    """After A1 B1, A2 B1 and A1 B2, no row has A2 B2."""
    for params in ({"a": 1, "b": 1}, {"a": 2, "b": 1}, {"a": 1, "b": 2}):
        project.again(evaluated(**params), params)
        table.record(project)
    found = [(row.metrics["a/score"], row.metrics["b/score"]) for row in table.rows]
    assert sorted(found) == [(1, 1), (1, 2), (2, 1)]


@pytest.mark.pipeline
def test_stage_by_stage(tmp_path: Path, stored: Locked) -> None:
    """Results that are recorded one by one join one row, in any order; so they do in MLflow."""
    whole = without_time(row(stored))
    start = locked(tmp_path / "one", TWO_EVALUATIONS, files=evaluated(), only=["prepare", "train"])
    orders = [*itertools.permutations(["train", "a", "b"])]
    found = {}
    for order in orders:
        each, table = start.copy(tmp_path / "-".join(order)), Table()
        for stage in order:
            each.ran(stage)
            table.record(each)
        found[order] = [without_time(own) for own in table.rows]
    assert found == {order: [whole] for order in orders}
    start.add_store()
    for stage in ("train", "b", "a"):
        start.ran(stage)
        start.record()
    stored.record()
    assert start.table() == stored.table()


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
    assert {*found.digests} == {"train"}
    assert found.params == {"rate": "2"}
    reason = "it has read a different model.txt than train has written"
    assert read(project).reasons == {"a": reason, "b": reason}
    project.ran()
    table.record(project)
    (found,) = table.rows
    assert {*found.digests} == {"train", "a", "b"}


def test_whole_floats(project: Locked) -> None:
    """25 and 25.0 are one value, as dvc.lock has them."""
    found = []
    for value in (25, 25.0, 25.5):
        project.again({}, {"a": value})
        found.append(row(project))
    assert [each.params["a"] for each in found] == ["25", "25", "25.5"]
    assert found[0].digests == found[1].digests != found[2].digests


def test_deleted_row(stored: Locked) -> None:
    """A row in MLflow's trash stays there until MLflow restores it; --dry-run only reports."""
    assert "would add" in stored.record("--dry-run").out
    assert stored.rows() == []
    stored.record()
    assert stored.record("--dry-run").out.startswith("nothing to do: MLflow has this result")
    (row,) = stored.rows()
    stored.client.delete_run(row.info.run_id)
    said = stored.record()
    assert (said.out, stored.rows()) == (
        f"left in MLflow's trash: run {row.info.run_id} (train, a, b); MLflow restores it\n",
        [],
    )
    stored.client.restore_run(row.info.run_id)
    assert stored.record().out.startswith("nothing to do: MLflow has this result")
    assert [r.info.run_id for r in stored.rows()] == [row.info.run_id]


def test_revision(stored: Locked) -> None:
    """A commit's results are recorded from git alone; the workspace stays as it is."""
    stored.commit("The results")
    first = stored.git("rev-parse", "HEAD")
    stored.again(evaluated(rate=2), {"rate": 2})
    stored.commit("Other results")
    before = stored.git("status", "--porcelain"), stored.lock
    stored.record("--rev", first)
    (found,) = stored.rows()
    assert found.data.params["rate"] == "1"
    assert found.data.tags["mlflow.source.git.commit"] == first
    assert found.data.metrics == {"train/loss": 0.25, "a/score": 1, "b/score": 1}
    assert row(stored, rev="main").params["rate"] == "2"
    assert (stored.git("status", "--porcelain"), stored.lock) == before
    said = stored.record("--rev", "nothing")
    assert (said.status, len(said.error.splitlines())) == (1, 1)
