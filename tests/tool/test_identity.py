"""Which row a result belongs to, with real DVC: a function of dvc.yaml and dvc.lock alone."""

import itertools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from mlflow.entities import Run

from pipelines import TWO_EVALUATIONS, Repository, evaluate, finished, prepare, repository, train

pytestmark = [
    pytest.mark.pipeline,
    pytest.mark.filterwarnings("ignore"),  # what MLflow warns of in the test's process
]


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """A pipeline with two evaluations that has run once, for all tests: `copy` it."""
    return finished(tmp_path_factory.mktemp("made") / "project", TWO_EVALUATIONS)


def results(run: Run) -> set[str]:
    """Return the names of the stages whose results a row has."""
    return {key.removeprefix("lock.") for key in run.data.tags if key.startswith("lock.")}


def reproduce(project: Repository, params: Mapping[str, Any] = {}, *arguments: str) -> None:
    """Run the pipeline with these params, and record it."""
    project.set(params)
    project.dvc("repro", "-q", *arguments)
    project.record()


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
    """A corrected evaluation of the same model is a row of its own; the old one stays."""
    project.record()
    stages = {**TWO_EVALUATIONS, "a": {**evaluate("a"), "cmd": "echo '{\"score\": 9}' > a.json"}}
    project.write({"dvc.yaml": json.dumps({"stages": stages})})
    reproduce(project)
    old, new = project.rows()
    assert (old.data.metrics["a/score"], new.data.metrics["a/score"]) == (1, 9)
    assert results(old) == results(new) == {"train", "a", "b"}
    assert old.data.params == new.data.params


def test_changed_code_with_the_same_bytes(project: Repository) -> None:
    """Code that changes and makes the same bytes changes no row."""
    project.record()
    stages = {**TWO_EVALUATIONS, "a": {**evaluate("a"), "cmd": "echo '{\"score\": 1}' > a.json"}}
    project.write({"dvc.yaml": json.dumps({"stages": stages})})
    reproduce(project)
    assert len(project.rows()) == 1


def test_changed_param_with_the_same_model(tmp_path: Path) -> None:
    """A changed param is another row, even where the model's bytes are the same."""
    stages = {"train": {**train("raw.txt"), "cmd": "cp raw.txt model.txt; : > curve.csv"}}
    project = repository(tmp_path / "project", stages)
    reproduce(project)
    reproduce(project, {"rate": 2})
    assert [row.data.params["rate"] for row in project.rows()] == ["1", "2"]
    assert len({row.data.tags["md5.model.txt"] for row in project.rows()}) == 1


@pytest.mark.parametrize(
    "order", [(0, 1, 2, 3), (3, 1, 0, 2), (2, 0, 3, 1)], ids=["forth", "mixed", "other"]
)
def test_order_of_runs(project: Repository, order: tuple[int, ...]) -> None:
    """Whatever the order of runs, the table is the same, and no row says what was never run."""
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


def test_only_what_ran_together(project: Repository) -> None:
    """After A1 B1, A2 B1 and A1 B2, no row says A2 B2."""
    for params in ({"a": 1, "b": 1}, {"a": 2, "b": 1}, {"a": 1, "b": 2}):
        reproduce(project, params)
    found = [(r.data.metrics["a/score"], r.data.metrics["b/score"]) for r in project.rows()]
    assert sorted(found) == [(1, 1), (1, 2), (2, 1)]


@pytest.mark.parametrize("order", [*itertools.permutations(["train", "a", "b"])])
def test_stage_by_stage(tmp_path: Path, made: Repository, order: tuple[str, ...]) -> None:
    """Results that come one by one join one row, in whatever order they come."""
    project = repository(tmp_path / "project", TWO_EVALUATIONS)
    for stage in order:
        project.dvc("repro", "-q", stage)
        project.record()
    whole = made.copy(tmp_path / "whole")
    whole.record()
    assert project.table() == whole.table()


@pytest.mark.parametrize("in_git", [True, False], ids=["git", "dvc"])
def test_other_test_data(tmp_path: Path, in_git: bool) -> None:
    """Other test data is another row, whether DVC or git keeps it, and with the same score too."""
    stages = {"train": train("raw.txt"), "a": evaluate("a", "model.txt", "test.txt")}
    if in_git:
        stages["a"]["meta"] = {"mlflow": {"data": ["test.txt"]}}
    files = {"test.txt": "1\n"}
    project = repository(
        tmp_path / "project", stages, files=files, data=[] if in_git else ["test.txt"]
    )
    reproduce(project)
    project.write({"test.txt": "2\n"})
    if not in_git:
        project.dvc("add", "-q", "test.txt")
    reproduce(project)
    assert len(project.rows()) == 2
    inputs = [
        {i.dataset.name: i.dataset.digest for i in r.inputs.dataset_inputs} for r in project.rows()
    ]
    assert inputs[0]["test.txt"] != inputs[1]["test.txt"]
    assert inputs[0]["model.txt"] == inputs[1]["model.txt"]


def test_code_kept_in_git_is_no_data(tmp_path: Path) -> None:
    """A file in git that nothing declares as data is code: it is in no digest."""
    stages = {"train": train("raw.txt"), "a": evaluate("a", "model.txt", "code.txt")}
    project = repository(tmp_path / "project", stages, files={"code.txt": "1\n"})
    reproduce(project)
    project.write({"code.txt": "2\n"})
    reproduce(project)
    (row,) = project.rows()
    assert [i.dataset.name for i in row.inputs.dataset_inputs] == ["model.txt"]


def items(**stages: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return stages for each of two items, which their files and params are named after."""
    text = json.dumps(stages).replace(".txt", "-${item}.txt").replace(".json", "-${item}.json")
    text = text.replace("raw-${item}", "raw").replace(".csv", "-${item}.csv")
    return {name: {"foreach": ["x", "y"], "do": do} for name, do in json.loads(text).items()}


def test_items_are_chains_of_their_own(tmp_path: Path) -> None:
    """Each item of a foreach is a row; its columns are those of the other items."""
    stages = items(train=train("raw.txt"), a=evaluate("a"))
    project = repository(tmp_path / "project", stages)
    reproduce(project)
    first, second = project.rows()
    assert results(first) == results(second) == {"train", "a"}
    assert {row.data.params["item"] for row in (first, second)} == {"x", "y"}
    assert first.data.metrics == second.data.metrics == {"train/loss": 0.25, "a/score": 1}
    assert first.info.run_name != second.info.run_name


def test_items_of_one_model(tmp_path: Path) -> None:
    """Items that evaluate one recorded model are in its row, told apart by their names."""
    stages = {"train": train("raw.txt"), **items(a=evaluate("a"))}
    stages["a"]["do"]["deps"] = ["model.txt"]
    project = repository(tmp_path / "project", stages)
    reproduce(project)
    (row,) = project.rows()
    assert results(row) == {"train", "a/x", "a/y"}
    assert row.data.metrics == {"train/loss": 0.25, "a/x/score": 1, "a/y/score": 1}


def test_matrix(tmp_path: Path) -> None:
    """Items of a matrix are rows with the matrix's values as params."""
    stage = {
        "matrix": {"size": [1, 2], "data": ["p", "q"]},
        "cmd": "echo ${item.size}${item.data} > out-${key}.txt; "
        "echo '{\"n\": ${item.size}}' > ${key}.json",
        "outs": ["out-${key}.txt"],
        "metrics": [{"${key}.json": {"cache": False}}],
    }
    project = repository(tmp_path / "project", {"fit": stage})
    reproduce(project)
    found = [(r.data.params["item.size"], r.data.params["item.data"]) for r in project.rows()]
    assert sorted(found) == [("1", "p"), ("1", "q"), ("2", "p"), ("2", "q")]
    assert {row.data.metrics["fit/n"] for row in project.rows()} == {1, 2}


def test_comparison_of_two_models(tmp_path: Path) -> None:
    """A stage that reads two models is a row of its own, and theirs stay as they are."""
    stages = items(train=train("raw.txt"), a=evaluate("a"))
    stages["b"] = evaluate("b", "model-x.txt", "model-y.txt")
    project = repository(tmp_path / "project", stages)
    reproduce(project)
    found = [results(row) for row in project.rows()]
    assert sorted(map(sorted, found)) == [["a", "train"], ["a", "train"], ["b"]]
    comparison = project.rows()[found.index({"b"})]
    assert comparison.data.metrics == {"b/score": 1}
    assert comparison.data.params["rate"] == "1"


def test_models_behind_one_another(tmp_path: Path) -> None:
    """A model that is made from a model is a row with both; the first has its evaluation too."""
    second: dict[str, Any] = {
        "cmd": "cat model.txt > model2.txt",
        "deps": ["model.txt"],
        "params": ["b"],
        "outs": ["model2.txt"],
        "plots": [{"second.csv": {"cache": False, "x": "step"}}],
    }
    second["cmd"] += "; printf 'step,loss\\n1,0.1\\n' > second.csv"
    stages = {"train": train("raw.txt"), "a": evaluate("a"), "tune": second}
    project = repository(tmp_path / "project", stages)
    reproduce(project)
    assert sorted(map(sorted, map(results, project.rows()))) == [["a", "train"], ["train", "tune"]]


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


def test_stale_in_the_middle(tmp_path: Path) -> None:
    """A stage is not recorded if one upstream is stale, though its own inputs are as written."""
    stages = {"prepare": prepare(), "train": train(), "a": evaluate("a")}
    project = repository(tmp_path / "project", stages)
    project.dvc("repro", "-q")
    project.write({"raw.txt": "2\n"})
    project.dvc("repro", "-q", "-s", "prepare")
    said = project.record()
    assert project.rows() == []
    assert "stage train is not recorded: it has read a different data.txt" in said.error
    assert "stage a is not recorded: stage train, upstream of it, must run first" in said.error


def test_nothing_has_run(tmp_path: Path) -> None:
    """Before the first `dvc repro` there is nothing to record."""
    project = repository(tmp_path / "project", TWO_EVALUATIONS)
    said = project.record()
    assert said.status == 0
    assert (
        "stage train is not recorded: dvc.lock has no result of it; run `dvc repro`" in said.error
    )
    assert project.rows() == []
    assert not (project.path / "mlflow.db").exists()


def test_stage_without_outputs(tmp_path: Path) -> None:
    """A stage without outputs is known by its params."""
    stages = {"train": train("raw.txt"), "say": {"cmd": "echo", "params": ["a"]}}
    project = repository(tmp_path / "project", stages)
    project.dvc("repro", "-q")
    project.record("--stages", "train,say")
    project.set({"a": 2})
    project.dvc("repro", "-q")
    project.record("--stages", "train,say")
    found = {(*results(row), row.data.params.get("a")) for row in project.rows()}
    assert found == {("train", None), ("say", "1"), ("say", "2")}


def test_persist(tmp_path: Path) -> None:
    """An output that stays between runs is known by what it was after each."""
    stage = {
        "cmd": "cat raw.txt >> log.txt; echo '{\"n\": 1}' > n.json",
        "deps": ["raw.txt"],
        "outs": [{"log.txt": {"persist": True}}],
        "metrics": [{"n.json": {"cache": False}}],
    }
    project = repository(tmp_path / "project", {"grow": stage})
    reproduce(project)
    reproduce(project, {}, "-f")
    assert len({row.data.tags["md5.log.txt"] for row in project.rows()}) == 2


def test_whole_floats(project: Repository) -> None:
    """25 and 25.0 are one value, as dvc.lock has them."""
    reproduce(project, {"a": 25})
    reproduce(project, {"a": 25.0})
    reproduce(project, {"a": 25.5})
    assert [row.data.params["a"] for row in project.rows()] == ["25", "25.5"]


def test_deleted_row(project: Repository) -> None:
    """A row in MLflow's trash stays there, until it is asked for."""
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


def test_which_stages(tmp_path: Path) -> None:
    """The prefix in any command, or --stages, says which stages are recorded."""
    stages = {"prepare": prepare(), "train": train(), "a": evaluate("a")}
    project = repository(tmp_path / "project", stages)
    project.dvc("repro", "-q")
    for chosen, expected in (("a", {"a"}), ("prepare,train", {"prepare", "train"})):
        project.record("--stages", chosen)
        assert expected in map(results, project.rows())
    said = project.record("--stages", "train,nothing")
    assert said.status == 1
    assert "no stage is named 'nothing'; known are ['a', 'prepare', 'train']" in said.error
    stages["train"]["cmd"] = f"dvc-mlflow run sh -c {json.dumps(stages['train']['cmd'])}"
    project.write({"dvc.yaml": json.dumps({"stages": stages})})
    (project.path / "mlflow.db").unlink()
    assert "(train)" in project.record("--dry-run").out


def test_what_an_unrecorded_stage_has(tmp_path: Path) -> None:
    """Metrics of an unrecorded stage are those of the first recorded stage below it."""
    stages = {"prepare": {**prepare(), "metrics": [{"n.json": {"cache": False}}]}}
    stages["prepare"]["cmd"] += "; echo '{\"lines\": 1}' > n.json"
    stages |= {"train": train(), "a": evaluate("a")}
    project = repository(tmp_path / "project", stages)
    project.dvc("repro", "-q")
    project.record("--stages", "train,a")
    (row,) = project.rows()
    assert results(row) == {"train", "a"}
    assert row.data.metrics == {"prepare/lines": 1, "train/loss": 0.25, "a/score": 1}


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
    """--dry-run says what would be done, and writes nothing."""
    said = project.record("--dry-run")
    assert "would add" in said.out
    assert not (project.path / "mlflow.db").exists()
    project.record()
    reproduce_nothing = project.record("--dry-run").out
    assert reproduce_nothing == "nothing to do: MLflow has this result\n"
