"""`record` names what is wrong with a project, and imports nothing from it."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from support.pipelines import Repository, served
from support.refusals import SCRIPT, refused_here

pytestmark = [
    pytest.mark.pipeline,
    pytest.mark.filterwarnings("ignore"),  # warnings from MLflow
]


@pytest.fixture(scope="session")
def made() -> Repository:
    """A pipeline with a model that has run once, for all tests: `copy` it."""
    return served()


DEEP = f"stages: {{a: {{cmd: b, meta: {'[' * 900}{']' * 900}}}}}"
BROKEN = [
    ("dvc.yaml", "stages: [", "unable to read: 'dvc.yaml'"),
    ("dvc.yaml", "stages: 7", "'dvc.yaml' validation failed: expected a dictionary at stages"),
    ("dvc.yaml", "stages: {a: {cmd: b, deps: [c], outs: [c]}}", "stages depend on one another"),
    ("dvc.yaml", DEEP, "dvc.yaml, or what it reads, is nested too deeply"),
    ("params.yaml", "? - ?", "DVC's files cannot be read: TypeError: unhashable type: 'dict'"),
    ("dvc.lock", "schema: '9'", "'dvc.lock' validation failed: invalid schema version"),
    ("dvc.lock", "", "'dvc.lock' validation failed: required key not provided"),
    (".dvc/config", "[[[", "config file error"),
    (".git/HEAD", "", "git rev-parse: "),
]


def test_broken_file(project: Repository) -> None:
    """A file that DVC or git cannot read is named, and nothing is recorded."""
    project.remove_store()
    for file, content, start in BROKEN:
        before = (project.path / file).read_text()
        project.write({file: content})
        assert refused_here(project).startswith(start)
        project.write({file: before})
    for revision in ("nothing", "--help", "HEAD~99", "a\x1b[31mb\nc", "/"):
        assert "revision" in refused_here(project, f"--rev={revision}")
    assert not (project.path / "mlflow.db").exists()


def test_no_project(project: Repository, tmp_path: Path) -> None:
    """Outside of a DVC project, or of any repository, `record` says so."""
    shutil.rmtree(project.path / ".dvc")
    assert refused_here(project).startswith("you are not inside of a DVC repository")
    shutil.rmtree(project.path / ".git")
    assert refused_here(project).startswith(f"{project.path} is in no git repository")
    gone = tmp_path / "gone"
    gone.mkdir()
    command = ["sh", "-c", f"rmdir '{gone}'; exec '{SCRIPT}' record"]
    done = subprocess.run(command, cwd=gone, capture_output=True, text=True, check=False)
    why = "the working directory does not exist any more; go to another one"
    assert done.stderr == f"dvc-mlflow: {why}\n"


def test_git_is_missing(project: Repository) -> None:
    """If git is missing or refuses the checkout, nothing is recorded: it would lack its commit."""
    project.remove_store()
    assert refused_here(project, PATH="/nowhere").startswith("git is not on PATH")
    if os.getuid() == 0:
        os.chown(project.path, 12345, 12345)
        os.chown(project.path / ".git", 12345, 12345)
        assert "safe.directory" in refused_here(project)
    assert not (project.path / "mlflow.db").exists()
