"""The repository's own store is hidden from git by `info/exclude`, where it is made."""

from pathlib import Path

import pytest

from support.locked import locked
from support.pipelines import Repository, evaluate
from support.twins import twins

pytestmark = [
    pytest.mark.pipeline,
    pytest.mark.filterwarnings("ignore"),  # warnings from MLflow
]


def test_record(tmp_path: Path) -> None:
    """`record` hides the store that it makes, also where there is no folder info/.

    If git tracks the store, it is left alone: the tool's own is in git's folder, as a line says.
    """
    stages, files = {"a": evaluate("a", "raw.txt")}, {"a.json": '{"score": 1}\n'}
    project = locked(tmp_path / "project", stages, files=files)
    (project.path / ".gitignore").unlink()
    project.commit()
    exclude = project.path / ".git/info/exclude"
    exclude.unlink(missing_ok=True)
    assert project.record("--dry-run").error == ""
    assert not exclude.exists()
    project.record()
    assert len(project.rows()) == 1
    assert project.git("status", "--short") == ""

    project.git("add", "-f", "mlflow.db")
    project.git("commit", "-q", "-m", "A store")
    before = exclude.read_text(), (project.path / "mlflow.db").read_bytes()
    project.set({"a": 2})
    done = project.run("dvc-mlflow", "record")
    where = f"MLflow's store is {project.path}/.git/dvc-mlflow/mlflow.db"
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"dvc-mlflow: mlflow.db is tracked by git, so {where}; ")
    assert done.returncode == 0
    assert (project.path / ".git/dvc-mlflow/mlflow.db").is_file()
    assert (exclude.read_text(), (project.path / "mlflow.db").read_bytes()) == before


@pytest.mark.rest
def test_worktree(tmp_path: Path) -> None:
    """From a worktree the main repository's store is hidden, and a dep called mlartifacts is not.

    DVC honours `info/exclude` in the main repository, but not in a worktree.
    """
    stages = {"a": evaluate("a", "source")}
    files = {"source/mlartifacts/x": "1\n", "source/mlflow.db": "1\n"}
    ours, twin = twins(tmp_path, stages, files=files)
    for project in (ours, twin):
        project.git("worktree", "add", "-q", "../tree")
    tree, other = (Repository(p.path.parent / "tree") for p in (ours, twin))
    for _ in range(2):
        tree.dvc("repro", "-q")
        tree.record()
        other.dvc("repro", "-q")
        ours.dvc("repro", "-q")
        ours.record()
        twin.dvc("repro", "-q")
        for mine, plain in ((tree, other), (ours, twin)):
            assert mine.lock == plain.lock
            assert mine.git("status", "--short") == plain.git("status", "--short")
            assert mine.dvc("status", "-q", check=False).returncode == 0
            mine.write({"source/mlartifacts/x": "2\n"})
            plain.write({"source/mlartifacts/x": "2\n"})
    assert len(ours.rows()) == 1  # code that changed made the same bytes
    assert not (tree.path / "mlflow.db").exists()
    assert (tree.path / ".git").is_file()
