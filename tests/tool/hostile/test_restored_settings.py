"""`restore` uses no setting, remote or import of a row's commit: only those of the checkout."""

import shutil
from pathlib import Path

import pytest

from support.hostile import Place
from support.pipelines import Repository
from support.restoring import only_folder

pytestmark = [
    pytest.mark.pipeline,
    pytest.mark.filterwarnings("ignore"),  # warnings from MLflow
]


def row_of(project: Repository, rate: str) -> str:
    """Return the id of the row with this param."""
    rows = (row for row in project.rows() if row.data.params.get("rate") == rate)
    return str(next(rows).info.run_id)


def keep_there(project: Repository, remote: Path) -> None:
    """Commit and record the result of another branch, whose outputs only a remote has then."""
    project.dvc("repro", "-q")
    project.dvc("push", "-q")
    assert [*remote.rglob("*")]
    project.commit("Theirs")
    project.record()
    project.git("checkout", "-q", "main")
    shutil.rmtree(project.path / ".dvc/cache")


def test_remotes(place: Place, tmp_path: Path) -> None:
    """A remote that only the row's commit has is not asked, whatever it is the default of."""
    project = place.project
    remote = tmp_path / "remote"
    config = project.path / ".dvc/config"
    theirs = f"[core]\n    remote = theirs\n['remote \"theirs\"']\n    url = {remote}\n"
    project.git("checkout", "-q", "-b", "theirs")
    project.set({"rate": 2})
    project.run("sed", "-i", "s,echo 1 > d/x,echo 2 > d/x,", "dvc.yaml")
    config.write_text(theirs)
    keep_there(project, remote)
    said = place.tool("restore", row_of(project, "2"))
    (line,) = said.error.splitlines()
    assert "d/x" in line or "d (md5" in line
    assert "there is no default DVC remote" in line
    place_of_x = only_folder(project) / "d/x"
    assert not place_of_x.exists()
    config.write_text(theirs)
    assert place.tool("restore", row_of(project, "2")).status == 0
    assert place_of_x.exists()


def test_remote_of_an_output(place: Place, tmp_path: Path) -> None:
    """A remote that an output of the commit names is that of the checkout, or none."""
    project, remote = place.project, tmp_path / "remote"
    project.git("checkout", "-q", "-b", "theirs")
    project.set({"rate": 2})
    project.run("sed", "-i", 's/"outs": ."d"./"outs": [{"d": {"remote": "theirs"}}]/', "dvc.yaml")
    assert "theirs" in (project.path / "dvc.yaml").read_text()
    project.run("sed", "-i", "s,echo 1 > d/x,echo 2 > d/x,", "dvc.yaml")
    (project.path / ".dvc/config").write_text(f"['remote \"theirs\"']\n    url = {remote}\n")
    keep_there(project, remote)
    said = place.tool("restore", row_of(project, "2"))
    assert (said.status, "d (md5" in said.error) == (1, True), said
    assert not (only_folder(project) / "d/x").exists()


def test_imports(place: Place) -> None:
    """What a .dvc file imports comes from there only if the checkout has the same file."""
    project, source = place.project, Repository(place.outside / "source")
    source.path.mkdir()
    source.git("init", "-q", "-b", "main")
    source.dvc("init", "-q")
    source.write({"given.txt": "imported\n"})
    source.commit("A file")
    project.git("checkout", "-q", "-b", "theirs")
    project.dvc("import", "-q", f"{source.path}", "given.txt")
    project.run("sed", "-i", 's/"raw.txt"/"given.txt"/', "dvc.yaml")
    project.set({"rate": 2})
    project.dvc("repro", "-q")
    project.commit("Theirs")
    project.record()
    project.git("checkout", "-q", "main")
    for path in (project.path / ".dvc/cache").rglob("*"):
        if path.is_file() and path.read_bytes() == b"imported\n":
            path.unlink()
    said = place.tool("restore", row_of(project, "2"))
    (line,) = said.error.splitlines()
    assert ": given.txt (md5 " in line
    assert line.endswith(" is missing: neither git nor DVC's cache has it")
    project.git("checkout", "-q", "theirs")
    assert place.tool("restore", row_of(project, "2")).status == 0
