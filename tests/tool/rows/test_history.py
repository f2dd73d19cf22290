"""`record --all` records every result of git's history once, and makes a lost store again."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from dvc_mlflow.pipeline import tags
from support.following import followed, following
from support.histories import FIRST, by, history
from support.locked import locked, trained
from support.pipelines import (
    ARTIFACTS,
    LOADER,
    TWO_EVALUATIONS,
    Repository,
    Stages,
    evaluate,
    repository,
    train,
)
from support.processes import wait
from support.rebuilding import UNCACHED

pytestmark = pytest.mark.pipeline


def state_of(project: Repository) -> list[str]:
    """Return git's status, refs and stash."""
    return [project.git("status", "--porcelain"), project.git("for-each-ref"), project.git("stash")]


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """A history of twelve results, all recorded."""
    made = history(tmp_path_factory.mktemp("long") / "project", 12)
    made.git("tag", "v1", "HEAD~8")
    (made.path / "README.md").write_text("More\n")
    made.commit("Add a README")
    made.git("tag", "-a", "v2", "-m", "Second")
    before = state_of(made)
    said = made.record("--all")
    assert (said.status, said.error) == (0, "")
    assert said.out.startswith("project: 12 rows added\nall rows: run `dvc-mlflow ui`")
    assert state_of(made) == before
    return made


def test_newest_first(long: Repository) -> None:
    """The rows of the last commits are recorded first."""
    with closing(sqlite3.connect(long.path / "mlflow.db")) as store:
        query = "SELECT value FROM params WHERE key = 'rate' ORDER BY rowid"
        assert [int(rate) for (rate,) in store.execute(query)] == [*reversed(range(12))]


def test_each_result_is_a_row(long: Repository) -> None:
    """A row has its commit's params, metrics and curve, and names the commit."""
    rows = by("rate", long)
    assert len(rows) == 12
    row = rows["3"]
    assert row.data.params == {"rate": "3", "threshold": "0"}
    assert row.data.metrics["evaluate/score"] == 0.003
    points = long.client.get_metric_history(row.info.run_id, "train/loss")
    assert [(p.step, p.value) for p in points] == [(step, 1 / (step + 3)) for step in range(1, 21)]
    commit, found = long.git("log", "--format=%H", "--grep=^Result 3$"), row.data.tags
    assert found[tags.COMMIT] == found[tags.KEPT] == commit
    assert found[tags.TREE] == long.git("rev-parse", f"{commit}^{{tree}}")
    assert found[tags.USER] == "A. Uthor"
    assert (row.info.start_time, row.info.end_time) == (1000 * (FIRST + 60 * 3), None)
    assert row.info.status == "FINISHED"


def test_nothing_is_recorded_twice(long: Repository) -> None:
    """A second import writes nothing, nor does `record` of commits or of the workspace."""
    first = (long.path / "mlflow.db").read_bytes()
    for words in (["--all"], ["--rev", "v1..v2"]):
        said = long.record(*words)
        assert said.out == "nothing to do: MLflow has all results that can be read\n"
    for words in (["--rev", "v1"], []):
        assert long.record(*words).out.startswith("nothing to do: MLflow has this result")
    assert (long.path / "mlflow.db").read_bytes() == first


def test_part_of_history(long: Repository, tmp_path: Path) -> None:
    """A range records the results of its commits; `--dry-run` only reports how many there are.

    A detached HEAD is imported, too.
    """
    project = long.copy(tmp_path / "project")
    project.remove_store()
    project.git("switch", "-q", "--detach")
    project.git("branch", "-q", "-D", "main")
    assert "12 rows would be added" in project.record("--all", "--dry-run").out
    assert not (project.path / "mlflow.db").exists()
    project.add_store()
    project.record("--rev", "HEAD~5..HEAD~2")
    assert sorted(by("rate", project)) == ["10", "8", "9"]
    project.record("--all")
    assert len(by("rate", project)) == 12


@pytest.mark.rest
def test_the_store_is_a_view(tmp_path: Path) -> None:
    """If the store is lost, `record --all` makes the same table, uncommitted results included.

    What was recorded live is not recorded again. Params and metrics are those that DVC shows.
    """
    lived = repository(tmp_path / "lived" / "project", TWO_EVALUATIONS)
    with following(lived):
        for i, params in enumerate([{}, {"rate": 2}, {"a": 5}, {"rate": 1, "a": 1}, {"b": 7}]):
            lived.git("switch", "-q", "-C", "side" if i == 1 else "main", "HEAD")
            lived.set(params)
            followed(lived, "repro", "-q")
            lived.commit(f"Result {i}")
        followed(lived, "exp", "run", "-q", "-n", "wide", "-S", "rate=9")
        lived.git("checkout", "-q", ".")
        followed(lived, "exp", "run", "-q", "--temp", "-n", "temporary", "-S", "rate=10")
        wait(lambda: len(lived.rows()) == 6, 60)  # the follower finds what a copy has made
        lived.set({"rate": 11})
        followed(lived, "repro", "-q")  # which nobody commits
        lived.git("checkout", "-q", ".")
        lived.dvc("checkout", "-q")
    table = lived.table()
    assert len(table) == 7
    assert lived.record("--all").out.startswith("nothing to do")
    assert lived.table() == table
    copy = lived.copy(tmp_path / "project")
    said = copy.record("--all")
    assert (said.status, said.error) == (0, "")
    assert copy.table() == table
    assert {r.info.run_name for r in copy.rows()} == {r.info.run_name for r in lived.rows()}
    changes = {r.data.tags.get(tags.EXPERIMENT): r.data.tags[tags.CHANGE] for r in copy.rows()}
    after = f"after {copy.git('rev-parse', 'HEAD')[:7]} Result 4"
    assert (changes["wide"], changes["temporary"]) == (after, after)
    (uncommitted,) = [r for r in copy.rows() if r.data.params["rate"] == "11"]
    assert uncommitted.data.tags[tags.COMMIT] == copy.git("rev-parse", "HEAD")
    copy.tool("restore", uncommitted.info.run_id)
    (restored,) = (copy.path / "restored").glob("*/params.yaml")
    assert "rate: 11" in restored.read_text()
    rows = {run.data.tags[tags.KEPT]: run for run in copy.rows()}
    compared = 0
    for entry in json.loads(copy.run("dvc", "exp", "show", "--all-commits", "--json").stdout):
        if (row := rows.get(entry["rev"])) and (data := entry.get("data")):
            params = data["params"]["params.yaml"]["data"]
            assert row.data.params == {key: str(value) for key, value in params.items()}
            for file, found in data["metrics"].items():
                numbers = {f"{Path(file).stem}/{key}": n for key, n in found["data"].items()}
                assert numbers.items() <= row.data.metrics.items()
            compared += 1
    assert compared >= 4


def shown(project: Repository) -> list[Any]:
    """Return what rows show, whatever the order in which they were made."""
    keys = (tags.COMMIT, tags.USER, tags.WHOLE, tags.KEPT)
    rows = sorted(project.rows(), key=lambda run: run.data.params["rate"])
    models = [len(project.models(run)) for run in rows]
    more = [(r.info.run_name, r.info.start_time, *map(r.data.tags.get, keys)) for r in rows]
    return [project.table(), more, models, [project.artifacts(run) for run in rows]]


def test_values_from_params(tmp_path: Path) -> None:
    """What dvc.yaml inserts is that of each commit, though its own text stays the same."""
    score = {"cmd": "score ${item}", "metrics": [{"${item}.json": {"cache": False}}]}
    stages: Stages = {"score": {"foreach": "${models}", "do": score}}
    files = {f"{name}.json": json.dumps({"score": i}) for i, name in enumerate("ab")}
    made = locked(tmp_path / "made", stages, {"models": ["a"]}, files)
    made.add_store()
    made.commit("One model")
    made.again({}, {"models": ["b"]})
    made.commit("Another one")
    made.record("--all")
    found = [(run.data.tags[tags.STAGE], run.data.metrics) for run in made.rows()]
    assert sorted(found) == [("score@a", {"score/score": 0}), ("score@b", {"score/score": 1})]


def test_orders(tmp_path: Path) -> None:
    """The table is the same, whether results are recorded at once, backwards, or as they grow.

    Metrics and a model are declared long after the first result.
    """
    undeclared = {**evaluate("a"), "outs": [{"a.json": UNCACHED}], "metrics": []}
    stages: Stages = {"train": train("raw.txt"), "a": undeclared}
    files = {**trained(), "a.json": '{"score": 1}', "loader.py": LOADER}
    made = locked(tmp_path / "made", stages, files=files)
    made.add_store()
    made.commit("First")
    declared = {"stages": {**stages, "a": evaluate("a")}}
    made.write({"dvc.yaml": json.dumps(declared)})
    made.commit("Metrics")
    made.again({**trained(2), "a.json": '{"score": 5}'}, {"rate": 2, "a": 5})
    made.commit("Second")
    made.write({"dvc.yaml": json.dumps({**declared, "artifacts": ARTIFACTS})})
    made.commit("A model")
    commits = made.git("rev-list", "--reverse", "HEAD").splitlines()
    at_once, backwards, grows = (made.copy(tmp_path / name) for name in ("at once", "back", "grow"))
    said = at_once.record("--all")
    assert (said.status, said.error) == (0, "")
    first, second = sorted(at_once.rows(), key=lambda run: run.data.params["rate"])
    # The first result was replaced before the model was declared.
    assert first.data.metrics == {"train/loss": 0.25, "a/score": 1}
    assert second.data.metrics == {"train/loss": 0.25, "a/score": 5}
    assert [len(at_once.models(row)) for row in (first, second)] == [0, 1]
    assert second.data.tags[tags.COMMIT] == commits[2]
    for commit in reversed(commits):
        backwards.record("--rev", commit)
    assert shown(backwards) == shown(at_once)
    lines = []
    for commit in commits:
        grows.git("reset", "-q", "--hard", commit)
        lines.append(grows.record("--all").out.partition("\n")[0].removeprefix("grow: "))
    assert lines == ["1 row added", "1 row completed", "1 row added", "1 row completed"]
    assert grows.record("--all").out.startswith("nothing to do")
    assert shown(grows) == shown(at_once)
