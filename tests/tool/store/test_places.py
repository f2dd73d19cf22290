"""Rows and their files are found wherever the project is, and after it was moved or copied."""

import json
import shutil
from pathlib import Path

import pytest

from support.locked import NO_GIT, Locked, evaluated, locked, row, trained
from support.pipelines import TWO_EVALUATIONS, Repository, evaluate, prepare, served, train
from support.stores import NOTHING, check_loads, experiments, files, is_inside, rows_of

pytestmark = [
    pytest.mark.pipeline,
    pytest.mark.filterwarnings("ignore"),  # warnings from MLflow
]


@pytest.fixture(scope="session")
def made() -> Repository:
    """A pipeline with a model that has run once, for all tests: `copy` it."""
    return served()


def test_nested_project(tmp_path: Path) -> None:
    """A nested project has its rows in the main repository's store, in its own experiment.

    In a subfolder of either, `record` does what it does at the root.
    """
    project = locked(tmp_path / "project", TWO_EVALUATIONS, files=evaluated())
    inner = locked(project.path / "inner/deep", TWO_EVALUATIONS, files=evaluated(2), git=False)
    inner.write({".dvc/config": "", "some/file": ""})
    project.write({"some/folder/file": ""})
    project.commit()
    project.add_store()
    assert "would add" in project.record("--dry-run", folder="some/folder").out
    assert project.record(folder="some/folder").status == 0
    assert project.record(folder="inner/deep/some").status == 0
    assert files(project.path / "some") == {"folder", "folder/file"}
    assert not (inner.path / "mlflow.db").exists()
    assert experiments(project) == ["project", "project/inner/deep"]
    of_outer, of_inner = sorted(project.rows(), key=lambda run: "folder" in run.data.tags)
    assert "folder" not in of_outer.data.tags
    assert of_inner.data.tags["folder"] == "inner/deep"
    assert of_inner.info.run_name[:7] == of_inner.data.tags["dvc-mlflow.found-by"][:7]
    for folder in (".", "inner/deep"):
        assert project.record(folder=folder).out.startswith(NOTHING)


def test_other_folders_of_stages(tmp_path: Path) -> None:
    """A stage in a subfolder has it in its name; `wdir` changes only where its files are."""
    below = train("../data.txt") | {"params": [{"../params.yaml": ["rate"]}]}
    score = evaluate("a") | {"params": [{"../params.yaml": ["a"]}], "wdir": "."}
    stages = {"prepare": prepare()}
    own = {"models/dvc.yaml": json.dumps({"stages": {"train": below, "a": score}})}
    own |= {f"models/{path}": text for path, text in evaluated().items()}
    project = locked(tmp_path / "project", stages, files={"data.txt": "1\n", **own})
    found = row(project)
    assert {*found.digests} == {"models/train", "models/a"}
    assert found.metrics == {"models/train/loss": 0.25, "models/a/score": 1}
    assert found.params == {"rate": "1", "a": "1"}
    assert found.tags["md5.models/model.txt"]
    assert {*found.inputs} == {"data.txt", "models/model.txt"}
    assert "models/model.txt" in found.files

    stage = {**train("../raw.txt"), "wdir": "work", "params": [{"../params.yaml": ["rate"]}]}
    own = {f"work/{path}": text for path, text in trained().items()}
    found = row(locked(tmp_path / "wdir", {"train": stage}, files=own))
    assert (found.metrics, found.params) == ({"train/loss": 0.25}, {"rate": "1"})
    assert {*found.files} == {"work/curve.csv", "work/model.txt"}


def test_worktree(project: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worktree's results go to the main repository's store, even if it lacks .dvc/tmp."""
    shutil.rmtree(project.path / ".dvc" / "tmp")
    tree = Repository(tmp_path / "tree")
    project.git("worktree", "add", "-q", "-b", "other", f"{tree.path}")
    tree.set({"rate": 2})
    tree.dvc("repro", "-q")
    tree.commit("Other results")
    tree.record()
    assert not (tree.path / "mlflow.db").exists()
    (found,) = project.rows()
    assert found.data.params["rate"] == "2"
    project.record()
    assert {found.data.params["rate"] for found in project.rows()} == {"1", "2"}
    assert tree.record().out.startswith(NOTHING)
    assert experiments(project) == ["project"]
    # So they do if the path of a database is relative.
    project.remove_store()
    project.add_store()
    (project.path / "mlflow.db").rename(project.path / "rows.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///rows.db")
    assert ": added" in tree.record().out
    (found,) = rows_of(f"sqlite:///{project.path}/rows.db")
    assert is_inside(found.info.artifact_uri, project.path / "mlartifacts")
    names = {path.name for path in tmp_path.rglob("*") if path.name in ("mlflow.db", "mlruns")}
    assert (names, [*tmp_path.rglob("rows.db")]) == (set(), [project.path / "rows.db"])


def test_moved_repository(project: Repository, tmp_path: Path) -> None:
    """After a repository was copied, moved or renamed, its artifacts load and no row is doubled.

    Its path may have spaces and letters of any alphabet.
    """
    project.record()
    place = tmp_path / "with space" / "ümläut"
    shutil.copytree(project.path, place, symlinks=True)
    for each in (Repository(place), project):
        assert each.record("--dry-run").out.startswith(NOTHING)
        assert each.record().out.startswith(NOTHING)
        (found,) = each.rows()
        check_loads(each, found)
    shutil.rmtree(project.path)
    moved = Repository(place.rename(tmp_path / "renamed"))
    moved.set({"a": 2})
    moved.dvc("repro", "-q")
    moved.record()
    assert [found.data.metrics["a/score"] for found in moved.rows()] == [1, 2]
    assert experiments(moved) == ["project"]
    for found in moved.rows():
        check_loads(moved, found)
    assert not project.path.exists()
    assert not place.exists()


def changed(project: Locked, rate: int) -> Locked:
    """Give a project another result."""
    project.again(trained(rate), {"rate": rate})
    return project


def test_experiments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MLFLOW_EXPERIMENT_NAME comes first, then `meta.mlflow.experiment`, then the default.

    That may be renamed in MLflow. A result that is known in one is not recorded in another.
    """
    stages = {"train": train("raw.txt")}
    project = locked(tmp_path / "project", stages, files=trained())
    project.add_store()
    project.record()
    (found,) = project.rows()
    project.client.rename_experiment(found.info.experiment_id, "My experiment")
    assert changed(project, 2).record().out.startswith("My experiment: added")
    stages["train"]["meta"] = {"mlflow": {"experiment": "declared"}}
    project.write({"dvc.yaml": json.dumps({"stages": stages})})
    assert project.record().out.startswith(NOTHING)
    assert changed(project, 3).record().out.startswith("declared: added")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "chosen")
    assert changed(project, 4).record().out.startswith("chosen: added")
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME")
    assert project.record().out.startswith(NOTHING)
    assert experiments(project) == ["My experiment", "chosen", "declared"]


def test_project_without_scm(tmp_path: Path) -> None:
    """The history of a project made by `dvc init --no-scm` is recorded if git has it after all."""
    project = locked(tmp_path / "project", {"train": train("raw.txt")}, files=trained())
    project.write(NO_GIT)
    (project.path / ".dvc/.gitignore").unlink()
    project.write({".gitignore": "/mlflow.db*\n/mlartifacts/\n/.dvc/tmp\n/.dvc/cache\n"})
    project.commit("Results")
    project.add_store()
    said = project.record("--all")
    assert (said.error, said.status) == ("", 0)
    (found,) = project.rows()
    assert found.data.metrics == {"train/loss": 0.25}
    assert project.record().out.startswith(NOTHING)
    said = project.tool("restore", found.info.run_id)
    assert (said.error, said.status) == ("", 0)
    assert changed(project, 2).record().error == ""
