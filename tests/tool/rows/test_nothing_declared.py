"""A pipeline that declares no metrics, curves or models has rows of its last stages."""

import json
import re
import shutil
from pathlib import Path

import pytest

from support.following import following
from support.locked import evaluated, locked, read, row, trained
from support.pipelines import Stages, evaluate, makes, prepare, train

pytestmark = [
    pytest.mark.pipeline,
    pytest.mark.filterwarnings("ignore"),  # warnings from MLflow
]


def test_last_stages(tmp_path: Path) -> None:
    """They have params, md5s and files; a line says once how to declare metrics, which helps."""
    score = {"cmd": "run", "deps": ["data.txt"], "params": ["rate"]}
    stages = {"prepare": prepare(), "train": {**score, "outs": ["out.json"]}}
    files = {"data.txt": "1\n", "out.json": '{"score": 3}'}
    project = locked(tmp_path / "project", stages, files=files)
    project.commit("The results")
    project.add_store()
    why = "declares no metrics, curves or models, so the last stages are recorded"
    errors = [project.record(*words).error for words in (["--dry-run"], [], [], ["--all"])]
    assert [why in error for error in errors] == [True, True, False, False]
    (found,) = project.rows()
    assert (found.data.params, found.data.metrics) == ({"rate": "1"}, {})
    assert found.data.tags["dvc.stage"] == "train"
    assert {"md5.data.txt", "md5.out.json"} <= found.data.tags.keys()
    assert project.artifacts(found) == ["out.json"]
    stages["train"] = {**score, "metrics": ["out.json"]}
    project.write({"dvc.yaml": json.dumps({"stages": stages})})
    said = project.record()
    assert (said.error, "completed" in said.out) == ("", True)
    (found,) = project.rows()
    assert found.data.metrics == {"train/score": 3}


SCORE = {"raw.txt": "1\n", "a.json": '{"score": 1}'}
LIKELY = {
    "scores.json": '{"f1": 1}',
    "out/Model-Report.yml": "f1: 1",
    "eval_1.yaml": "f1: 1",
}
UNLIKELY = {
    "retrieval.json": '{"f1": 1}',
    "scores.csv": "f1\n1",
    "out.json": '{"f1": 1}',
    "report.json": f'{{"f1": 1, "text": "{64_000 * "x"}"}}',
}


@pytest.mark.parametrize("name", [*LIKELY, *UNLIKELY])
def test_likely_metrics(tmp_path: Path, name: str) -> None:
    """Where no metrics are declared, a file whose name says that it has some counts as one."""
    files = {"data.txt": "1\n", "b.txt": "1\n", **LIKELY, **UNLIKELY}
    stages: Stages = {
        "prepare": {"cmd": "run", "outs": ["data.txt", "results.json"]},
        "train": {"cmd": "run", "deps": ["data.txt"], "outs": [name]},
        "other": {"cmd": "run", "deps": ["data.txt"], "outs": ["b.txt"]},
    }
    project = locked(tmp_path / "project", stages, files={**files, "results.json": '{"a": 1}'})
    found = {each.tags["dvc.stage"]: each.metrics for each in read(project).rows}
    assert found == {"train": {"train/f1": 1} if name in LIKELY else {}, "other": {}}


def test_likely_metrics_are_said(tmp_path: Path) -> None:
    """A line names them, and says how to declare them."""
    stages = {"train": makes({"scores.json": '{"f1": 1}'}, outs=["scores.json"])}
    project = locked(tmp_path / "project", stages, files={"scores.json": '{"f1": 1}'})
    project.add_store()
    why = "dvc.yaml declares no metrics, so the numbers in scores.json count as such; list files"
    assert f"{why} of numbers under `metrics:` of their stage" in project.record().error
    (found,) = project.rows()
    assert found.data.metrics == {"train/f1": 1}


def test_declared_elsewhere(tmp_path: Path) -> None:
    """A metric that another stage declares ends that."""
    stages = {"prepare": prepare()}
    project = locked(tmp_path / "project", stages, files=evaluated())
    assert {*row(project).digests} == {"prepare"}
    stages["a"] = evaluate("a", "data.txt")
    project.again({"dvc.yaml": json.dumps({"stages": stages})})
    assert {*row(project).digests} == {"a"}


def test_why_there_are_no_rows(tmp_path: Path) -> None:
    """Zero rows is said as that, with what to do; doing it gives rows."""
    score = {"a.json": '{"score": 1}'}
    project = locked(tmp_path / "project", {"a": evaluate("a", "raw.txt")}, files=score)
    result = {**score, "dvc.lock": project.lock}
    for name in result:
        (project.path / name).unlink()
    project.commit("No result")
    project.add_store()
    said = project.record("--all")
    assert said.out == ""
    none = "dvc-mlflow: 0 rows: no commit has a result of a recorded stage in its dvc.lock"
    why = "stage a is not recorded: dvc.lock has no result of it"
    assert said.error.splitlines() == [none, f"dvc-mlflow: {why}; run `dvc repro`"]
    project.write(result)
    uncommitted = "the result in dvc.lock is not committed; `dvc-mlflow record` adds its row"
    assert uncommitted in project.record("--all").out
    assert "added" in project.record().out
    project.commit("The result")
    (found,) = project.rows()
    project.client.delete_run(found.info.run_id)
    trash = f"left in MLflow's trash: run {found.info.run_id} (a); MLflow restores it\n"
    assert project.record("--all").out.startswith(trash)


def test_results_of_other_branches(tmp_path: Path) -> None:
    """From a commit without dvc.lock `record --all` reads them; without .dvc, it says which has."""
    project = locked(tmp_path / "project", {"a": evaluate("a", "raw.txt")}, files=SCORE)
    project.add_store()
    project.commit("The result")
    has = project.git("rev-parse", "--short", "HEAD")
    project.git("rm", "-q", "dvc.lock", "dvc.yaml")
    project.commit("Nothing")
    assert "1 row added" in project.record("--all").out
    project.git("branch", "-m", "without")
    project.git("branch", "main", has)
    project.git("rm", "-qr", ".dvc")
    project.git("commit", "-qm", "No project")
    clone = project.path.parent / "clone"
    project.git("clone", "-q", str(project.path), str(clone))
    said = project.tool("record", "--all", folder="../clone")
    assert said.error.endswith(f"; commit {has} of refs/remotes/origin/main has results\n")


def test_outdated(tmp_path: Path) -> None:
    """Numbers that are not of the data beside them are in no row, and a line names the commit."""
    stages = {"train": train("raw.txt"), "a": evaluate("a")}
    project = locked(tmp_path / "project", stages, {"rate": 1, "a": 1}, evaluated())
    project.commit("A result")
    project.again(trained(2), {"rate": 2}, "train")
    project.commit("Only a training")
    project.add_store()
    head = project.git("rev-parse", "--short=7", "HEAD")
    said = project.record("--all")
    why = "stage a is not recorded: it has read a different model.txt than train has written"
    assert f"dvc-mlflow: {head}: {why}\n" in said.error
    assert {run.data.metrics.get("a/score") for run in project.rows()} == {1, None}


def test_said_once(tmp_path: Path) -> None:
    """Lines that differ in names only are one, with the first commit, a count and the names."""
    stages = {name: evaluate(name, "raw.txt", cache=True) for name in "abc"}
    files = {"raw.txt": "1\n", **{f"{name}.json": '{"score": 1}' for name in stages}}
    project = locked(tmp_path / "project", stages, dict.fromkeys(stages, 1), files)
    project.add_store()
    for n in (1, 2):
        project.again({f"{name}.json": f'{{"score": {n}}}' for name in stages})
        project.commit(f"{n}")
    shutil.rmtree(project.path / ".dvc/cache")
    for name in stages:
        (project.path / f"{name}.json").unlink()
    (line,) = project.record("--all").error.splitlines()
    head = project.git("rev-parse", "--short=7", "HEAD")
    files_of = "[abc].json: not as in dvc.lock; .*"
    assert re.fullmatch(f"dvc-mlflow: {head} and 1 more: {files_of} .and 2 more: .*", line)
    assert all(f"{name}.json" in line for name in stages)


def test_lost_files_are_counted(tmp_path: Path) -> None:
    """In a fresh clone, `follow` says only how many rows lack files."""
    project = locked(tmp_path / "project", {"a": evaluate("a", "raw.txt", cache=True)}, files=SCORE)
    project.commit("The result")
    clone = project.copy(tmp_path / "clone")
    shutil.rmtree(clone.path / ".dvc/cache", ignore_errors=True)
    with following(clone) as follower:
        follower.wait_for("rows that lack files: 1; `dvc-mlflow record --all` lists them")
    assert not any("a.json" in line for line in follower.lines)
    assert "a.json: not as in dvc.lock" in clone.record("--all").error
