"""`record` names what is wrong with a project, and imports nothing from it."""

import os
import shutil
from pathlib import Path

import pytest

from support.pipelines import Repository, served
from support.refusals import refused_here

pytestmark = pytest.mark.pipeline


@pytest.fixture(scope="session")
def made() -> Repository:
    """A pipeline with a model that has run once, for all tests: `copy` it."""
    return served()


def test_no_project(project: Repository, tmp_path: Path) -> None:
    """Outside of a DVC project, or of any folder, `record` says so."""
    shutil.rmtree(project.path / ".dvc")
    assert refused_here(project).startswith("you are not inside of a DVC repository")
    gone = tmp_path / "gone"
    gone.mkdir()
    command = f"cd '{gone}'; rmdir '{gone}'; exec dvc-mlflow record"
    done = project.run("sh", "-c", command, check=False)
    why = "the working directory does not exist any more; go to another one"
    said = [line for line in done.stderr.splitlines() if "getcwd" not in line]  # the shell's own
    assert said == [f"dvc-mlflow: {why}"]


def test_what_git_refuses(project: Repository) -> None:
    """If git is missing, or refuses the checkout or a revision, nothing is recorded."""
    project.remove_store()
    for revision in ("nothing", "--help", "HEAD~99", "a\x1b[31mb\nc", "/"):
        assert "revision" in refused_here(project, f"--rev={revision}")
    assert "no commits 'HEAD~99..HEAD'" in refused_here(project, "--rev=HEAD~99..HEAD")
    assert refused_here(project, PATH="/nowhere").startswith("git is not on PATH")
    if os.getuid() == 0:
        os.chown(project.path, 12345, 12345)
        os.chown(project.path / ".git", 12345, 12345)
        assert "safe.directory" in refused_here(project)
    assert not (project.path / "mlflow.db").exists()
