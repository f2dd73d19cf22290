"""What DVC 2 wrote, `.dvc` files that come later, and files that only a remote has."""

import json
import shutil
from pathlib import Path

import pytest

from support.locked import locked
from support.pipelines import Stages, evaluate, makes, repository

pytestmark = [
    pytest.mark.pipeline,
    pytest.mark.filterwarnings("ignore"),  # warnings from MLflow
]


def test_keys_of_dvc_2(tmp_path: Path) -> None:
    """`live:` and `checkpoint:`, which DVC 3 refuses, hide nothing; what else is wrong is said."""
    score = {"a.json": '{"score": 1}\n'}
    project = locked(tmp_path / "project", {"a": evaluate("a", "raw.txt")}, files=score)
    project.add_store()
    old = evaluate("a", "raw.txt")
    old |= {"live": {"dvclive": {"summary": True}}, "outs": [{"w.pt": {"checkpoint": True}}]}
    project.write({"dvc.yaml": json.dumps({"stages": {"a": old}})})
    lock = project.path / "dvc.lock"
    more = (
        "    outs:\n    - path: w.pt\n      md5: 0cc175b9c0f1b6a831c399e269772661\n      size: 1\n"
    )
    lock.write_text(lock.read_text().replace("    outs:\n", more))
    assert more in lock.read_text()
    project.commit("Checkpoints")
    project.write({"dvc.yaml": json.dumps({"stages": {"a": {**old, "dep": ["raw.txt"]}}})})
    project.commit("A typo")
    said = project.record("--all")
    assert said.error.startswith(f"dvc-mlflow: {project.git('rev-parse', 'HEAD')[:7]}: ")
    assert (
        "'dvc.yaml' validation failed: extra keys not allowed at stages -> a -> dep" in said.error
    )
    (row,) = project.rows()
    assert row.data.metrics == {"a/score": 1}
    assert project.record("--all").out.startswith("nothing to do")


def test_tracked_later(tmp_path: Path) -> None:
    """A `.dvc` file that appears after a result makes no second row of it."""
    stages = {"a": evaluate("a", "data")}
    files = {"data/raw.txt": "1\n", "a.json": '{"score": 1}\n'}
    project = locked(tmp_path / "project", stages, files=files)
    project.add_store()
    project.commit("The result")
    project.record()
    project.git("rm", "-q", "--cached", "data/raw.txt")
    project.track("data/raw.txt")
    project.commit("Track the data")
    assert project.record("--all").out.startswith("nothing to do")
    project.again({"a.json": '{"score": 2}\n'}, {"a": 2})
    project.record()
    assert [row.data.metrics for row in project.rows()] == [{"a/score": 1}, {"a/score": 2}]


@pytest.mark.rest
def test_fetch_inside_a_folder(tmp_path: Path) -> None:
    """`--fetch` gets the files of a folder that a row shows, and no others."""
    stages: Stages = {"eval": makes({"eval/metrics.json": '{"n": 3}'}, outs=["eval"])}
    stages["eval"]["cmd"] += "; head -c 2000000 /dev/zero > eval/big.bin"
    project = repository(tmp_path / "project", stages, metrics=["eval/metrics.json"])
    project.dvc("repro", "-q")
    project.dvc("remote", "add", "-q", "-d", "there", str(tmp_path / "remote"))
    project.commit("The result")
    project.dvc("push", "-q")
    clone = project.copy(tmp_path / "clone")
    shutil.rmtree(clone.path / ".dvc/cache", ignore_errors=True)
    shutil.rmtree(clone.path / "eval", ignore_errors=True)
    said = clone.record("--all")
    assert said.error.endswith(": eval: not as in dvc.lock; `--fetch` looks in DVC's remote\n")
    said = clone.record("--all", "--fetch")
    assert said.error == ""
    (row,) = clone.rows()
    assert row.data.metrics == {"eval/n": 3}
    sizes = [
        file.stat().st_size for file in (clone.path / ".dvc/cache").rglob("*") if file.is_file()
    ]
    assert max(sizes) < 1000
    for oid in (tmp_path / "remote").rglob("*"):
        if oid.is_file() and oid.stat().st_size == 8:
            oid.unlink()
    again = project.copy(tmp_path / "again")
    shutil.rmtree(again.path / ".dvc/cache", ignore_errors=True)
    shutil.rmtree(again.path / "eval", ignore_errors=True)
    said = again.record("--all", "--fetch")
    assert "eval cannot be fetched: it did not come from the DVC remote 'there'" in said.error
    assert "with --fetch" not in said.error


@pytest.mark.rest
def test_fetch_from_nowhere(tmp_path: Path) -> None:
    """Of a remote that does not answer, nothing says that it lacks a file."""
    stages = {"a": evaluate("a", "raw.txt", cache=True)}
    project = repository(tmp_path / "project", stages)
    project.dvc("repro", "-q")
    project.dvc("remote", "add", "-q", "-d", "there", "https://127.0.0.1:9/x")
    project.commit("The result")
    shutil.rmtree(project.path / ".dvc/cache")
    said = project.record("--all", "--fetch")
    assert "a.json cannot be fetched: it did not come from the DVC remote 'there'" in said.error
    assert "a.json: not as in dvc.lock" in said.error


def test_nothing_new(tmp_path: Path) -> None:
    """A second `record --all` reads nothing but what the rows lack, until DVC's cache has it."""
    meta = {"mlflow": {"experiment": "mine"}}
    stages = {"a": {**evaluate("a", "raw.txt", cache=True), "meta": meta}}
    project = repository(tmp_path / "project", stages)
    project.dvc("repro", "-q")
    project.commit("The result")
    project.dvc("remote", "add", "-q", "-d", "there", str(tmp_path / "remote"))
    project.dvc("push", "-q")
    shutil.rmtree(project.path / ".dvc/cache")
    first = project.record("--all")
    assert "a.json: not as in dvc.lock; `--fetch` looks in DVC's remote" in first.error
    second = project.record("--all")
    nothing = "nothing to do: MLflow has all results that can be read\n"
    (row,) = project.rows()
    lacking = f"dvc-mlflow: {row.info.run_name[:7]}: a.json: not as in dvc.lock\n"
    assert (second.error, second.out) == (lacking, nothing)
    project.dvc("fetch", "-q")
    third = project.record("--all")
    assert (third.error, third.out.partition("\n")[0]) == ("", "mine: 1 row completed")
    (row,) = project.rows()
    assert row.data.metrics == {"a/score": 1}
