"""Where the store is and what git sees of it, however git keeps a checkout; no stage has to run."""

import shutil
from contextlib import chdir
from pathlib import Path
from unittest.mock import patch

import pytest

from dvc_mlflow.errors import StoreError
from dvc_mlflow.place import address, folder_of, main_repository
from dvc_mlflow.store.git_exclude import hide_store
from support.clone import Clone, environment
from support.disks import immutable
from support.pipelines import repository


def store_of(folder: Path, **more: str) -> Path:
    """Return where the tool finds its store in a folder."""
    with chdir(folder), patch.dict("os.environ", environment(**more), clear=True):
        return Path(address(main_repository()).removeprefix("sqlite:///"))


def test_where_the_store_is(tmp_path: Path) -> None:
    """The store is in the main repository's project, however git keeps it, whatever GIT_DIR is."""
    main = repository(tmp_path / "main", {})
    main.write({"some/folder/file": ""})
    main.git("worktree", "add", "-q", "../tree")
    main.git("clone", "-q", "--bare", ".", "../bare.git")
    main.git("-C", "../bare.git", "worktree", "add", "-q", "../of-bare")
    main.git("clone", "-q", "--separate-git-dir=../git-dir", ".", "../apart")
    outer = Clone(tmp_path / "outer")
    outer.path.mkdir()
    outer.git("init", "-q")
    outer.git("-c", "protocol.file.allow=always", "submodule", "add", "-q", "../main", "module")
    for folder in ("folder", "folder/inner"):
        shutil.copytree(main.path, outer.path / folder, ignore=shutil.ignore_patterns(".git"))
    outer.commit()
    outer.git("worktree", "add", "-q", "../outer-tree")
    main.write({".dvc/tmp/exps/copy/file": ""})
    expected = {
        "main": "main",
        "main/some/folder": "main",
        "tree": "main",
        "of-bare": "of-bare",
        "apart": "apart",
        "outer/module": "outer/module",
        "outer/folder": "outer/folder",
        "outer/folder/inner": "outer/folder",
        "outer-tree/folder": "outer/folder",
    }
    found = {name: store_of(tmp_path / name) for name in expected}
    assert found == {name: tmp_path / root / "mlflow.db" for name, root in expected.items()}
    assert store_of(main.path, GIT_DIR=f"{tmp_path}/none") == main.path / "mlflow.db"
    copy = main.path / ".dvc/tmp/exps/copy"
    assert store_of(copy, DVC_ROOT=f"{main.path}") == main.path / "mlflow.db"
    relative = {"MLFLOW_TRACKING_URI": "sqlite:///rows.db"}
    for name in ("main/some", "tree"):
        assert store_of(tmp_path / name, **relative) == main.path / "rows.db"


@pytest.mark.parametrize(
    ("project", "folder"), [("", ""), ("a/b", "a/b"), (".hidden/b", ".hidden/b"), ("../other", "")]
)
def test_folder_of_a_project(tmp_path: Path, project: str, folder: str) -> None:
    """A project's folder in its checkout keeps its dots, as experiments are named after it."""
    top = tmp_path / "top"
    assert folder_of((top / project).resolve(), top) == folder


@pytest.mark.parametrize("name", ["what?", "100%20", "a#b"])
def test_path_that_mlflow_would_misread(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path that MLflow would misread in an address is refused; a store elsewhere is not."""
    for given in ("", "sqlite:///rows.db"):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", given)
        with pytest.raises(StoreError, match=r"must not contain \?, # or %; move it, or set"):
            address(Path("/work") / name)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:////rows.db")
    assert address(Path("/work") / name) == "sqlite:////rows.db"


HIDDEN = ["/mlflow.db*", "/mlartifacts/", "/restored/"]


def excluded(root: Path, folder: str = "") -> list[str]:
    """Hide the store of a folder, and return what git ignores in the repository."""
    hide_store.cache_clear()
    hide_store(root / folder)
    return (root / ".git/info/exclude").read_text().splitlines()


def test_what_is_hidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What git ignores gains the store's files that the user does not hide, once."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    cases = {
        "nothing": ("", "", [*HIDDEN]),
        "a line without an end": ("", "*.log", ["*.log", *HIDDEN]),
        "all": ("*.db\n/mlartifacts\nrestored\n", "", []),
        "some": ("mlflow.db*\nmlartifacts/\n", "", ["/restored/"]),
    }
    found = {}
    for name, (ignored, before, _) in cases.items():
        made = Clone(tmp_path / name)
        made.path.mkdir()
        made.git("init", "-q")
        (made.path / ".gitignore").write_text(ignored)
        (made.path / ".git/info/exclude").write_text(before)
        lines = excluded(made.path)
        assert excluded(made.path) == lines
        found[name] = [line for line in lines if not line.startswith("# dvc-mlflow: ")]
    assert found == {name: lines for name, (_, _, lines) in cases.items()}
    # A folder's name may have characters that are a pattern's.
    below = [f"/a \\[b]\\*/deep{line}" for line in HIDDEN]
    (tmp_path / "nothing/a [b]*/deep").mkdir(parents=True)
    assert excluded(tmp_path / "nothing", "a [b]*/deep")[-3:] == below


def test_read_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """If `.git` is read-only, one line says so."""
    made = Clone(tmp_path)
    made.git("init", "-q")
    file = tmp_path / ".git/info/exclude"
    with immutable(file):
        excluded(tmp_path)
    said = capsys.readouterr().err
    assert said.startswith(f"dvc-mlflow: {file}: ")
    assert said.endswith(", so git shows MLflow's files as untracked\n")
    assert said.count("\n") == 1
