"""`restore` uses no setting, remote or import of a row's commit: only those of the checkout."""

import shutil
from pathlib import Path

import pytest

from support.clone import environment
from support.hostile import Place
from support.pipelines import Repository

pytestmark = [
    pytest.mark.pipeline,
    pytest.mark.filterwarnings("ignore"),  # warnings from MLflow
]


def row_of(project: Repository, rate: str) -> str:
    """Return the id of the row with this param."""
    rows = (row for row in project.rows() if row.data.params.get("rate") == rate)
    return str(next(rows).info.run_id)


@pytest.mark.parametrize("is_known", [False, True])
def test_remotes(place: Place, tmp_path: Path, is_known: bool) -> None:
    """A remote that only the row's commit has is not asked, whatever it is the default of."""
    project = place.project
    remote = tmp_path / "remote"
    section = f"['remote \"theirs\"']\n    url = {remote}\n"
    own = (project.path / ".dvc/config").read_text()
    project.set({"rate": 2})
    project.git("checkout", "-q", "-b", "theirs")
    project.run("sed", "-i", "s,echo 1 > d/x,echo 2 > d/x,", "dvc.yaml")
    (project.path / ".dvc/config").write_text(f"[core]\n    remote = theirs\n{section}")
    project.dvc("repro", "-q")
    project.dvc("push", "-q")
    assert [*remote.rglob("*")]
    project.commit("Theirs")
    project.record()
    project.git("checkout", "-q", "main")
    if is_known:
        (project.path / ".dvc/config").write_text(f"[core]\n    remote = theirs\n{section}")
    else:
        assert (project.path / ".dvc/config").read_text() == own
    shutil.rmtree(project.path / ".dvc/cache")
    said = project.tool("restore", row_of(project, "2"), **environment())
    (folder,) = (p for p in (project.path / "restored").iterdir() if (p / ".git").exists())
    assert (said.status == 0) == is_known, said
    assert (folder / "d/x").exists() == is_known
    if not is_known:
        (line,) = said.error.splitlines()
        assert "d/x" in line or "d (md5" in line
        assert "there is no default DVC remote" in line


@pytest.mark.parametrize("is_known", [False, True])
def test_imports(place: Place, is_known: bool) -> None:
    """What a .dvc file imports comes from there only if the checkout has the same file."""
    project, source = place.project, Repository(place.outside / "source")
    source.path.mkdir()
    source.git("init", "-q", "-b", "main")
    source.dvc("init", "-q")
    source.write({"given.txt": "imported\n"})
    source.commit("A file")
    if not is_known:
        project.git("checkout", "-q", "-b", "theirs")
    project.dvc("import", "-q", f"{source.path}", "given.txt")
    project.run("sed", "-i", 's/"raw.txt"/"given.txt"/', "dvc.yaml")
    project.set({"rate": 2})
    project.dvc("repro", "-q")
    project.commit("Theirs")
    project.record()
    if not is_known:
        project.git("checkout", "-q", "main")
    for path in (project.path / ".dvc/cache").rglob("*"):
        if path.is_file() and path.read_bytes() == b"imported\n":
            path.unlink()
    said = project.tool("restore", row_of(project, "2"), **environment())
    assert (said.status == 0) == is_known, said
    if not is_known:
        (line,) = said.error.splitlines()
        assert "given.txt" in line
        assert "the .dvc file that imports it is not as in the main repository" in line
