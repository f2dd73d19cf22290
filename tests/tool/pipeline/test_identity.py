"""A result has the same row whatever the order of runs; no row says what never ran."""

import itertools
import json
from pathlib import Path

import pytest

from support.pipelines import (
    TWO_EVALUATIONS,
    Repository,
    evaluate,
    finished,
    repository,
    reproduce,
    results,
    train,
)

pytestmark = [
    pytest.mark.pipeline,
    pytest.mark.versions,
    pytest.mark.filterwarnings("ignore"),  # warnings from MLflow
]


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """A pipeline with two evaluations that has run once, for all tests: `copy` it."""
    return finished(tmp_path_factory.mktemp("made") / "project", TWO_EVALUATIONS)


def test_one_row(project: Repository) -> None:
    """A model and its evaluations are one row; recording again adds nothing."""
    said = project.record()
    (row,) = project.rows()
    assert results(row) == {"train", "a", "b"}
    assert row.info.status == "FINISHED"
    assert row.data.metrics == {"train/loss": 0.25, "a/score": 1, "b/score": 1}
    assert "added" in said.out
    before = project.table()
    assert project.record().out == "nothing to do: MLflow has this result\n"
    project.dvc("repro", "-q", "-f")
    assert project.record().out == "nothing to do: MLflow has this result\n"
    assert project.table() == before


def test_corrected_evaluation(project: Repository) -> None:
    """A corrected evaluation of the same model is a new row; the old row stays."""
    project.record()
    stages = {**TWO_EVALUATIONS, "a": {**evaluate("a"), "cmd": "echo '{\"score\": 9}' > a.json"}}
    project.write({"dvc.yaml": json.dumps({"stages": stages})})
    reproduce(project)
    old, new = project.rows()
    assert (old.data.metrics["a/score"], new.data.metrics["a/score"]) == (1, 9)
    assert results(old) == results(new) == {"train", "a", "b"}
    assert old.data.params == new.data.params


def test_changed_code_with_the_same_bytes(project: Repository) -> None:
    """Changed code that makes the same bytes adds no row."""
    project.record()
    stages = {**TWO_EVALUATIONS, "a": {**evaluate("a"), "cmd": "echo '{\"score\": 1}' > a.json"}}
    project.write({"dvc.yaml": json.dumps({"stages": stages})})
    reproduce(project)
    assert len(project.rows()) == 1


@pytest.mark.parametrize(
    "order",
    [
        (3, 1, 0, 2),
        pytest.param((0, 1, 2, 3), marks=pytest.mark.rest),
        pytest.param((2, 0, 3, 1), marks=pytest.mark.rest),
    ],
    ids=["mixed", "forth", "other"],
)
def test_order_of_runs(project: Repository, order: tuple[int, ...]) -> None:
    """Whatever the order of runs, the table has every result, and no row is incomplete."""
    states = [(1, 1), (2, 1), (1, 2), (2, 2)]
    for index in order:
        a, b = states[index]
        project.set({"a": a, "b": b})
        project.dvc("repro", "-q", "a" if index % 2 else "b")
        project.record()  # between the two
        project.dvc("repro", "-q")
        project.record()
    table = [
        (row["metrics"].get("a/score"), row["metrics"].get("b/score")) for row in project.table()
    ]
    assert {*states} <= {*table}
    assert all(None not in pair for pair in table)


@pytest.mark.rest
def test_only_what_ran_together(project: Repository) -> None:
    """After A1 B1, A2 B1 and A1 B2, no row has A2 B2."""
    for params in ({"a": 1, "b": 1}, {"a": 2, "b": 1}, {"a": 1, "b": 2}):
        reproduce(project, params)
    found = [(r.data.metrics["a/score"], r.data.metrics["b/score"]) for r in project.rows()]
    assert sorted(found) == [(1, 1), (1, 2), (2, 1)]


ORDERS = [*itertools.permutations(["train", "a", "b"])]


@pytest.mark.parametrize(
    "order", [ORDERS[0], *(pytest.param(order, marks=pytest.mark.rest) for order in ORDERS[1:])]
)
def test_stage_by_stage(tmp_path: Path, made: Repository, order: tuple[str, ...]) -> None:
    """Results that are recorded one by one join one row, in any order."""
    project = repository(tmp_path / "project", TWO_EVALUATIONS)
    for stage in order:
        project.dvc("repro", "-q", stage)
        project.record()
    whole = made.copy(tmp_path / "whole")
    whole.record()
    assert project.table() == whole.table()


def test_run_cache(project: Repository) -> None:
    """A result that DVC takes from its run cache is recorded like one that ran."""
    before = project.lock
    reproduce(project, {"rate": 2})
    project.set({"rate": 1})
    done = project.dvc("repro", "prepare", "train")
    assert "is cached - skipping run" in done.stdout
    project.dvc("repro", "-q")
    assert project.lock == before
    project.record()
    assert sorted(row.data.params["rate"] for row in project.rows()) == ["1", "2"]


def test_frozen_stage(project: Repository) -> None:
    """Below a frozen stage results are recorded, whatever has changed above it."""
    stages = {**TWO_EVALUATIONS, "train": {**train(), "frozen": True}}
    project.write({"dvc.yaml": json.dumps({"stages": stages}), "raw.txt": "2\n"})
    reproduce(project, {"a": 2})
    (row,) = project.rows()
    assert row.data.metrics == {"train/loss": 0.25, "a/score": 2, "b/score": 1}
    assert row.data.params["rate"] == "1"


def test_stale_stage(project: Repository) -> None:
    """Below a stale stage nothing is recorded, and one line says so; no row mixes params."""
    project.set({"rate": 2})
    project.dvc("repro", "-q", "-s", "train")
    said = project.record()
    (row,) = project.rows()
    assert results(row) == {"train"}
    assert row.data.params == {"rate": "2"}
    reason = "it has read a different model.txt than train has written; run `dvc repro`"
    assert said.error.splitlines() == [
        f"dvc-mlflow: stage a is not recorded: {reason}",
        f"dvc-mlflow: stage b is not recorded: {reason}",
    ]
    reproduce(project)
    (row,) = project.rows()
    assert results(row) == {"train", "a", "b"}


def test_whole_floats(project: Repository) -> None:
    """25 and 25.0 are one value, as dvc.lock has them."""
    reproduce(project, {"a": 25})
    reproduce(project, {"a": 25.0})
    reproduce(project, {"a": 25.5})
    assert [row.data.params["a"] for row in project.rows()] == ["25", "25.5"]


def test_deleted_row(project: Repository) -> None:
    """A row in MLflow's trash stays there until `--deleted` restores it."""
    project.record()
    (row,) = project.rows()
    project.client.delete_run(row.info.run_id)
    said = project.record()
    assert (said.out, project.rows()) == (
        f"left in MLflow's trash: run {row.info.run_id} (train, a, b); --deleted restores it\n",
        [],
    )
    project.record("--deleted", "--dry-run")
    assert project.rows() == []
    assert project.record("--deleted").out.startswith("restored run")
    assert [r.info.run_id for r in project.rows()] == [row.info.run_id]


def test_revision(project: Repository) -> None:
    """A commit's results are recorded from git alone; the workspace stays as it is."""
    first = project.git("rev-parse", "HEAD")
    project.set({"rate": 2})
    project.dvc("repro", "-q")
    project.commit("Other results")
    before = project.git("status", "--porcelain"), project.lock
    project.record("--rev", first)
    (row,) = project.rows()
    assert row.data.params["rate"] == "1"
    assert row.data.tags["mlflow.source.git.commit"] == first
    assert row.data.metrics == {"train/loss": 0.25, "a/score": 1, "b/score": 1}
    project.record("--rev", "main")
    assert [row.data.params["rate"] for row in project.rows()] == ["1", "2"]
    assert project.record().out == "nothing to do: MLflow has this result\n"
    assert (project.git("status", "--porcelain"), project.lock) == before
    said = project.record("--rev", "nothing")
    assert (said.status, len(said.error.splitlines())) == (1, 1)


def test_dry_run(project: Repository) -> None:
    """--dry-run reports what would be done, and writes nothing."""
    project.remove_store()
    said = project.record("--dry-run")
    assert "would add" in said.out
    assert not (project.path / "mlflow.db").exists()
    project.record()
    reproduce_nothing = project.record("--dry-run").out
    assert reproduce_nothing == "nothing to do: MLflow has this result\n"
