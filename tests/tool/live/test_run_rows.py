"""Stages that run with the prefix have the rows that `record` would make, wherever they run."""

import json
from pathlib import Path

import pytest

from support.live_runs import one, recorded, recorders, wait
from support.pipelines import TWO_EVALUATIONS, Repository, evaluate, prepare, repository, train

pytestmark = [
    pytest.mark.pipeline,
    pytest.mark.versions,
    pytest.mark.filterwarnings("ignore"),  # warnings from MLflow
]


@pytest.mark.parametrize(
    "start", ["exec ", pytest.param("", marks=pytest.mark.rest)], ids=["exec", "shell"]
)
def test_rows_are_those_of_record(tmp_path: Path, start: str) -> None:
    """Live rows are those that `record` makes, plus the machine, the time and the counts."""
    stages = recorded(TWO_EVALUATIONS, "train", "a", "b", start=start)
    live = repository(tmp_path / "live", stages)
    for params in ({}, {"a": 2}, {"rate": 2}, {"rate": 1, "b": 3}):
        live.set(params)
        live.dvc("repro", "-q")
        live.commit("Results")
    assert "nothing to do" in live.record().out
    assert len(live.rows()) == 4
    later = live.copy(tmp_path / "later")
    for revision in reversed(later.git("log", "-4", "--format=%H").split()):
        later.record("--rev", revision)
    assert live.table() == later.table()
    assert {row.info.status for row in live.rows()} == {"FINISHED"}
    wait(lambda: not recorders(live))
    assert not list((live.path / ".dvc/tmp/dvc-mlflow").iterdir())


@pytest.mark.rest
def test_again(tmp_path: Path) -> None:
    """A result that is made again adds no row; a row in the trash comes back."""
    project = repository(tmp_path / "project", recorded(TWO_EVALUATIONS, "train", "a", "b"))
    project.dvc("repro", "-q")
    before = project.table()
    project.dvc("repro", "-q", "-f", "-s", "train")
    project.dvc("repro", "-q", "-f", "-s", "train")
    assert project.table() == before
    (row,) = project.rows()
    project.client.delete_run(row.info.run_id)
    project.dvc("repro", "-q", "-f", "-s", "a")
    assert [r.info.run_id for r in project.rows()] == [row.info.run_id]


@pytest.fixture(scope="session")
def prefixed(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """A recorded pipeline of two stages that has run and is committed: `copy` it."""
    stages = {"prepare": prepare(), **recorded({"train": train(), "a": evaluate("a")})}
    project = repository(tmp_path_factory.mktemp("prefixed") / "project", stages)
    project.dvc("repro", "-q")
    project.commit("Results")
    return project


@pytest.mark.rest
def test_experiments(prefixed: Repository, tmp_path: Path) -> None:
    """`exp run`, `--temp` and a queue of two at a time record into the repository's own store."""
    project = prefixed.copy(tmp_path / "project")
    project.dvc("exp", "run", "-q", "-S", "rate=2", "-n", "here")
    project.dvc("exp", "run", "-q", "--temp", "-S", "rate=3", "-n", "copy")
    project.dvc("exp", "run", "-q", "--queue", "-S", "rate=4,5")
    project.run_queue()
    found = {row.data.params["rate"]: row for row in project.rows()}
    assert {*found} == {"2", "3", "4", "5"}
    for rate, row in found.items():
        assert row.info.status == "FINISHED"
        given = {"2": "here ", "3": "copy "}.get(rate, "")
        digits = row.data.tags["dvc-mlflow.lock.a"][:7]
        assert row.info.run_name == f"{given}rate={rate} {digits}"
        assert row.data.metrics["a/score"] == 1
        assert row.data.tags["dvc.exp_name"]
    assert found["3"].data.tags["dvc.exp_name"] == "copy"
    assert len(project.rows()) == 4


@pytest.mark.rest
def test_places(tmp_path: Path) -> None:
    """Stages in subfolders, with `wdir`, in a foreach or a worktree record into the same store."""
    project = repository(tmp_path / "project", {}, files={"sub/raw.txt": "1\n", "w/keep": ""})
    inner = {
        **recorded({"train": train("raw.txt")}),
        "each": {
            "foreach": ["x", "y"],
            "do": {
                "wdir": "../w",
                "cmd": "dvc-mlflow run -c 'echo 1 > ${item}.txt'",
                "deps": ["../sub/raw.txt"],
                "outs": ["${item}.txt"],
            },
        },
    }
    project.write({"sub/dvc.yaml": json.dumps({"stages": inner}), "sub/params.yaml": "rate: 1\n"})
    project.commit("Stages in a folder")
    project.run("sh", "-c", "cd sub && dvc repro -q")
    table = project.table()
    found = [sorted(row["results"]) for row in table]
    assert sorted(found) == [
        ["dvc-mlflow.lock.sub/each"],
        ["dvc-mlflow.lock.sub/each"],
        ["dvc-mlflow.lock.sub/train"],
    ]
    assert "nothing to do" in project.record().out
    project.commit("Results")
    project.git("worktree", "add", "-q", "../tree")
    tree = Repository(tmp_path / "tree")
    tree.write({"sub/params.yaml": "rate: 2\n"})
    tree.dvc("repro", "-q", "sub/dvc.yaml")
    assert len(project.rows()) == 4
    assert not (tree.path / "mlflow.db").exists()


@pytest.mark.rest
def test_nested_dvc(tmp_path: Path) -> None:
    """A stage that runs `dvc` itself has a row, and so have the stages of that `dvc`."""
    stages = one("-c 'cd inner && dvc repro -q && cp out.txt ../outer.txt'", outs=["outer.txt"])
    inner = {"two": {"cmd": "dvc-mlflow run -c 'echo 1 > out.txt'", "outs": ["out.txt"]}}
    project = repository(tmp_path / "project", {}, files={"inner/keep": ""})
    project.run("sh", "-c", "cd inner && dvc init -q --subdir")
    project.write(
        {
            "dvc.yaml": json.dumps({"stages": stages}),
            "inner/dvc.yaml": json.dumps({"stages": inner}),
        }
    )
    project.dvc("repro", "-q")
    found = {row.data.tags.get("folder", ""): row for row in project.rows()}
    assert {*found} == {"", "inner"}
    assert {row.info.status for row in found.values()} == {"FINISHED"}
