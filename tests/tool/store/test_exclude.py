"""The repository's own store is hidden from git by `info/exclude`, where it is made."""

from pathlib import Path

import pytest

from support.disks import immutable
from support.pipelines import Repository, evaluate
from support.twins import NEW, twins, unheard, unheard_below

pytestmark = [
    pytest.mark.pipeline,
    pytest.mark.filterwarnings("ignore"),  # warnings from MLflow
]

STAGES = {"a": evaluate("a", "raw.txt")}
LINES = "/mlflow.db*\n/mlartifacts/\n/restored/\n"


def exclude(project: Repository) -> Path:
    """Return the file with what git ignores in a repository, and in all its worktrees."""
    return project.path / ".git" / "info" / "exclude"


@pytest.fixture
def project(tmp_path: Path) -> Repository:
    """A pipeline that has run, and has never heard of the tool."""
    made = unheard(tmp_path / "project", STAGES)
    made.dvc("repro", "-q")
    made.commit("The results")
    return made


def test_record(project: Repository) -> None:
    """`record` hides the store that it makes, also where there is no folder info/."""
    exclude(project).unlink()
    exclude(project).parent.rmdir()
    assert project.record("--dry-run").error == ""
    assert not exclude(project).exists()
    project.record()
    assert exclude(project).read_text().endswith(LINES)
    assert project.git("status", "--short") == ""
    before = exclude(project).read_text()
    project.remove_store()
    project.record()
    assert exclude(project).read_text() == before


def test_no_line_end(project: Repository) -> None:
    """A file whose last line has no end keeps that line as it is."""
    exclude(project).write_text("*.log")
    project.record()
    first, mark, *lines = exclude(project).read_text().splitlines()
    assert (first, mark[0], lines) == ("*.log", "#", LINES.split())


@pytest.mark.parametrize(
    ("ignored", "added"),
    [
        ("*.db\n/mlartifacts\nrestored\n", ""),
        ("mlflow.db*\nmlartifacts/\n", "/restored/\n"),
    ],
)
def test_hidden_already(project: Repository, ignored: str, added: str) -> None:
    """What the user's .gitignore hides is not written again."""
    project.write({".gitignore": ignored})
    before = exclude(project).read_text()
    project.record()
    new = exclude(project).read_text().removeprefix(before)
    assert new.partition("\n")[2] == added
    assert bool(new) == bool(added)


def test_tracked(project: Repository) -> None:
    """If git tracks the store, one line says so, nothing is hidden, and stages run."""
    project.add_store()
    project.commit("A store")
    before = exclude(project).read_text()
    store = (project.path / "mlflow.db").read_bytes()
    line = f"MLflow at {project.path}/mlflow.db: git tracks mlflow.db, and is not used; "
    (said,) = project.record().error.splitlines()
    assert said.startswith(f"{NEW}{line}")
    project.set({"a": 2})
    assert line in project.run("dvc-mlflow", "run", "dvc", "repro").stderr
    assert '"score": 2' in (project.path / "a.json").read_text()
    assert (project.path / "mlflow.db").read_bytes() == store
    assert exclude(project).read_text() == before


def test_read_only(project: Repository) -> None:
    """If `.git` is read-only, one line says so, and the rows are recorded."""
    with immutable(exclude(project)):
        done = project.record()
    assert done.error.startswith(f"{NEW}{exclude(project)}: ")
    assert done.error.endswith(", so git shows MLflow's files as untracked\n")
    assert len(done.error.splitlines()) == 1
    assert len(project.rows()) == 1


@pytest.mark.rest
def test_below_the_root(tmp_path: Path) -> None:
    """A project below git's root has the lines with its folder, whatever characters that has."""
    outer = Repository(tmp_path / "outer")
    outer.path.mkdir()
    outer.git("init", "-q", "-b", "main")
    inner = unheard_below(outer, "a [b]*/deep", STAGES)
    inner.dvc("repro", "-q")
    inner.record()
    start = "/a \\[b]\\*/deep"
    lines = [f"{start}{line}" for line in LINES.split()]
    assert exclude(outer).read_text().splitlines()[-3:] == lines
    status = outer.git("status", "--short", "--untracked-files=all")
    assert "mlflow" not in status
    assert "mlartifacts" not in status
    assert len(inner.rows()) == 1


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
