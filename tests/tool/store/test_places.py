"""Where the store is, and the rows in it, wherever a project is, and after it was moved."""

import json
import shutil
from contextlib import chdir
from pathlib import Path
from unittest.mock import patch

import pytest

from dvc_mlflow.errors import StoreError
from dvc_mlflow.pipeline.tags import FOLDER, FOUND_BY
from dvc_mlflow.place import address, default_experiment, main_repository, store_folder
from dvc_mlflow.store.git_exclude import hide_store
from support.clone import Clone, contents, environment
from support.kills import immutable
from support.locked import Locked, evaluated, locked, trained
from support.pipelines import TWO_EVALUATIONS, Repository, evaluate, repository, served, train
from support.rebuilding import NOTHING, check_loads, experiments

pytestmark = pytest.mark.pipeline


@pytest.fixture(scope="session")
def made() -> Repository:
    """A pipeline with a model that has run once, for all tests: `copy` it."""
    return served()


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


def test_path_that_mlflow_would_misread(monkeypatch: pytest.MonkeyPatch) -> None:
    """A path that MLflow would misread in an address is refused; a store elsewhere is not."""
    for name in ("what?", "100%20", "a#b"):
        monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
        with pytest.raises(StoreError, match=r"must not contain \?, # or %; move it, or set"):
            address(Path("/work") / name)
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:////rows.db")
        assert address(Path("/work") / name) == "sqlite:////rows.db"


def test_nested_project(tmp_path: Path) -> None:
    """A nested project has its rows in the main repository's store, in its own experiment.

    In a subfolder of either, `record` does what it does at the root.
    """
    project = locked(tmp_path / "project", TWO_EVALUATIONS, files=evaluated())
    inner = locked(project.path / ".inner/deep", TWO_EVALUATIONS, files=evaluated(2), git=False)
    inner.write({".dvc/config": "", "some/file": ""})
    project.write({"some/folder/file": ""})
    project.commit()
    project.add_store()
    assert "would add" in project.record("--dry-run", folder="some/folder").out
    assert project.record(folder="some/folder").status == 0
    assert project.record(folder=".inner/deep/some").status == 0
    assert {*contents(project.path / "some")} == {"folder", "folder/file"}
    assert not (inner.path / "mlflow.db").exists()
    assert experiments(project) == ["project", "project/.inner/deep"]
    of_outer, of_inner = sorted(project.rows(), key=lambda run: FOLDER in run.data.tags)
    assert FOLDER not in of_outer.data.tags
    assert of_inner.data.tags[FOLDER] == ".inner/deep"
    assert of_inner.info.run_name[:7] == of_inner.data.tags[FOUND_BY][:7]
    for folder in (".", ".inner/deep"):
        assert project.record(folder=folder).out.startswith(NOTHING)


def test_worktree(project: Repository, tmp_path: Path) -> None:
    """A worktree's results go to the main repository's store, even if it lacks .dvc/tmp."""
    shutil.rmtree(project.path / ".dvc" / "tmp")
    tree = Repository(tmp_path / "tree")
    project.git("worktree", "add", "-q", "-b", "other", f"{tree.path}")
    tree.set({"rate": 2})
    tree.dvc("repro", "-q")
    tree.commit("Other results")
    tree.record()
    assert not (tree.path / "mlflow.db").exists()
    assert [found.data.params["rate"] for found in project.rows()] == ["2"]
    project.record()
    assert {found.data.params["rate"] for found in project.rows()} == {"1", "2"}
    assert tree.record().out.startswith(NOTHING)
    assert experiments(project) == ["project"]


def test_moved_repository(project: Repository, tmp_path: Path) -> None:
    """After a repository was copied, moved or renamed, its artifacts load and no row is doubled.

    Its path may have spaces and letters of any alphabet.
    """
    project.record()
    place = tmp_path / "with space" / "ümläut"
    shutil.copytree(project.path, place, symlinks=True)
    for each in (Repository(place), project):
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


def test_names_of_experiments(tmp_path: Path) -> None:
    """The default experiment is named after the git remote, so that all clones share it.

    Its owner and name count, however it is reached; of a folder, its name.
    """
    project = Clone(tmp_path / "project")
    project.path.mkdir()
    project.git("init", "-q")
    project.git("remote", "add", "origin", "x")
    names = {
        "https://example.org/group/us/flowers.git": "group/us/flowers",
        "../flowers.git": "flowers",
        "file:///srv/git/flowers.git": "flowers",
        "https://example.org": "project",
    }
    for url, name in names.items():
        project.git("remote", "set-url", "origin", url)
        assert default_experiment(project.path) == name
        assert default_experiment(project.path, "sub") == f"{name}/sub"


def changed(project: Locked, rate: int) -> Locked:
    """Give a project another result."""
    project.again(trained(rate), {"rate": rate})
    return project


def test_experiments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MLFLOW_EXPERIMENT_NAME comes first, then `meta.mlflow.experiment`, then the default.

    That keeps its name when a remote is added, and may be renamed in MLflow. A result that is known
    in one is not recorded in another.
    """
    stages = {"train": train("raw.txt")}
    project = locked(tmp_path / "project", stages, files=trained())
    project.add_store()
    project.record()
    (found,) = project.rows()
    project.git("remote", "add", "origin", "git@example.org:us/flowers.git")
    assert changed(project, 2).record().out.startswith("project: added")
    project.client.rename_experiment(found.info.experiment_id, "My experiment")
    assert changed(project, 3).record().out.startswith("My experiment: added")
    stages["train"]["meta"] = {"mlflow": {"experiment": "declared"}}
    project.write({"dvc.yaml": json.dumps({"stages": stages})})
    assert project.record().out.startswith(NOTHING)
    assert changed(project, 4).record().out.startswith("declared: added")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "chosen")
    assert changed(project, 5).record().out.startswith("chosen: added")
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME")
    assert project.record().out.startswith(NOTHING)
    assert experiments(project) == ["My experiment", "chosen", "declared"]


HIDDEN = ["/mlflow.db*", "/mlartifacts/", "/restored/"]


def excluded(root: Path, folder: str = "") -> list[str]:
    """Hide the store of a folder, and return what git ignores in the repository."""
    hide_store.cache_clear()
    hide_store(root / folder)
    return (root / ".git/info/exclude").read_text().splitlines()


def test_what_is_hidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What git ignores gains the store's files, each once."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    for name, before in {"nothing": "*.log", "some": "/mlflow.db*\n"}.items():  # no last line's end
        made = Clone(tmp_path / name)
        made.path.mkdir()
        made.git("init", "-q")
        (made.path / ".git/info/exclude").write_text(before)
        lines = excluded(made.path)
        assert excluded(made.path) == lines
        own = [line for line in lines if not line.startswith("# dvc-mlflow: ")]
        assert own == [*dict.fromkeys([before.strip(), *HIDDEN])]
    # A folder's name may have characters that are a pattern's.
    below = [f"/a \\[b]\\*/deep{line}" for line in HIDDEN]
    (tmp_path / "nothing/a [b]*/deep").mkdir(parents=True)
    assert excluded(tmp_path / "nothing", "a [b]*/deep")[-3:] == below


def test_git_sees_no_store(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`record` hides the store that it makes, also where there is no folder info/.

    With a database of another name, it hides the files of rows, and says nothing of the store that
    it does not use, if git tracks that. If git's file is read-only, one line says so.
    """
    stages, made = {"a": evaluate("a", "raw.txt")}, {"a.json": '{"score": 1}\n'}
    project = locked(tmp_path / "project", stages, files=made)
    (project.path / ".gitignore").unlink()
    project.commit()
    file = project.path / ".git/info/exclude"
    shutil.rmtree(file.parent)
    assert project.record("--dry-run").error == ""
    assert not file.exists()
    project.record()
    assert len(project.rows()) == 1
    assert project.git("status", "--short") == ""
    file.write_text("")
    hide_store.cache_clear()
    project.tool("record", MLFLOW_TRACKING_URI="sqlite:///own.db")
    assert project.git("status", "--short") == "?? own.db"
    project.git("add", "-f", "mlflow.db")
    for cached in (hide_store, store_folder):
        cached.cache_clear()
    assert project.tool("record", MLFLOW_TRACKING_URI="sqlite:///mlflow.db").error == ""
    project.git("rm", "-q", "--cached", "mlflow.db")
    store_folder.cache_clear()
    file.write_text("")
    with immutable(file):
        excluded(project.path)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"dvc-mlflow: {file}: ")
    assert line.endswith(", so git shows MLflow's files as untracked")
