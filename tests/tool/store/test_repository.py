"""Where the store is, however git keeps a checkout; DVC and MLflow are not needed."""

import shutil
import sys
from pathlib import Path

import pytest

from dvc_mlflow.place import folder_of
from support.clone import Clone
from support.pipelines import repository

STORE = "from dvc_mlflow.place import *; print(address(main_repository()))"


def store_of(folder: Path, **more: str) -> Path:
    """Return where the tool finds its store in a folder."""
    done = Clone(folder).run(sys.executable, "-c", STORE, check=True, **more)
    return Path(done.stdout.strip().removeprefix("sqlite:///"))


def test_where_the_store_is(tmp_path: Path) -> None:
    """The store is in the main repository's project, however git keeps it, whatever GIT_DIR is."""
    main = repository(tmp_path / "main", {})
    own = main.path / "mlflow.db"
    assert store_of(main.path) == store_of(main.path, GIT_DIR=f"{tmp_path}/none") == own
    main.git("worktree", "add", "-q", "../tree")
    assert store_of(tmp_path / "tree") == own

    main.git("clone", "-q", "--bare", ".", "../bare.git")
    main.git("-C", "../bare.git", "worktree", "add", "-q", "../of-bare")
    main.git("clone", "-q", "--separate-git-dir=../git-dir", ".", "../apart")
    for name in ("of-bare", "apart"):
        assert store_of(tmp_path / name) == tmp_path / name / "mlflow.db"

    outer = Clone(tmp_path / "outer")
    outer.path.mkdir()
    outer.git("init", "-q")
    outer.git("-c", "protocol.file.allow=always", "submodule", "add", "-q", "../main", "module")
    assert store_of(outer.path / "module") == outer.path / "module" / "mlflow.db"
    shutil.copytree(main.path, outer.path / "folder", ignore=shutil.ignore_patterns(".git"))
    assert store_of(outer.path / "folder") == outer.path / "folder" / "mlflow.db"
    outer.commit()
    outer.git("worktree", "add", "-q", "../outer-tree")
    assert store_of(tmp_path / "outer-tree" / "folder") == outer.path / "folder" / "mlflow.db"


@pytest.mark.parametrize(
    ("project", "folder"), [("", ""), ("a/b", "a/b"), (".hidden/b", ".hidden/b"), ("../other", "")]
)
def test_folder_of_a_project(tmp_path: Path, project: str, folder: str) -> None:
    """A project's folder in its checkout keeps its dots, as experiments are named after it."""
    top = tmp_path / "top"
    assert folder_of((top / project).resolve(), top) == folder
