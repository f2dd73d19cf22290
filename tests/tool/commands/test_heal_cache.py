"""`dvc-mlflow heal` moves damaged files of DVC's cache aside, and writes nowhere else."""

import json
from pathlib import Path
from typing import Any

import pytest

from support.healing import PIPELINE, contents, damage, heal, healed, md5, place
from support.pipelines import Repository, finished, repository

pytestmark = pytest.mark.pipeline


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """A pipeline that has run, with its results committed."""
    return finished(tmp_path_factory.mktemp("made") / "project", PIPELINE)


@pytest.mark.parametrize("content", [b"", b"damaged"], ids=["empty", "bytes"])
def test_damaged_cache(project: Repository, content: bytes) -> None:
    """DVC restores a damaged file from its cache again and again, until `heal` moves it aside."""
    lock, model = project.lock, project.path / "model.txt"
    good = model.read_bytes()
    cached = place(project, md5(good))
    damage(cached, content)
    model.unlink()
    project.dvc("checkout", "-f", "model.txt")
    assert model.read_bytes() == content
    (line,) = heal(project)
    cure = f"`dvc pull` or `dvc repro` brings {model} back"
    assert line == f"{cached}: is damaged; moved aside; {cure}"
    assert cached.with_name(f"{cached.name}.damaged").read_bytes() == content
    assert not model.exists()
    assert project.repro() == ["train"]
    assert model.read_bytes() == cached.read_bytes() == good
    assert project.lock == lock


def test_damaged_cache_beside_an_intact_file(project: Repository) -> None:
    """A file in the workspace that is not a copy of the damaged one is kept."""
    model = project.path / "model.txt"
    good = model.read_bytes()
    damage(place(project, md5(good)))
    assert len(heal(project)) == 1
    assert model.read_bytes() == good
    model.unlink()
    model.write_text("an edit")
    damage(place(project, md5(b"2\n")))
    assert len(heal(project)) == 1
    assert model.read_text() == "an edit"


@pytest.mark.rest
def test_damaged_folder(project: Repository) -> None:
    """For a folder, both its files and their list are checked."""
    one = place(project, md5(b"1\n"))
    (listed,) = project.path.glob(".dvc/cache/files/md5/*/*.dir")
    for path in (one, listed):
        damage(path)
        assert healed(project) == [f"{path.relative_to(project.path)}"]
        assert project.repro() in ([], ["split"])
        project.dvc("repro", "-q", "-f", "split")
        assert (project.path / "parts/one").read_text() == "1\n"
        assert heal(project) == []
        assert project.dvc("status").stdout.startswith("Data and pipelines are up to date")


@pytest.mark.rest
def test_data(tmp_path: Path) -> None:
    """Files that a .dvc file tracks are checked too; `dvc pull` brings them back."""
    project = repository(
        tmp_path / "project", PIPELINE, files={"data.txt": "1\n"}, data=["data.txt"]
    )
    project.dvc("remote", "add", "-q", "-d", "team", f"{tmp_path}/remote")
    project.dvc("push", "-q")
    cached = place(project, md5(b"1\n"))
    damage(cached)
    (project.path / "data.txt").unlink()
    project.dvc("checkout", "-q", "-f", "data.txt")
    assert healed(project) == [f"{cached.relative_to(project.path)}"]
    project.dvc("pull", "-q", "data.txt.dvc")
    assert (project.path / "data.txt").read_text() == "1\n"


def test_paths_that_lead_out(project: Repository, tmp_path: Path) -> None:
    """A forged dvc.lock cannot make `heal` move or delete files outside the project."""
    away = tmp_path / "away"
    away.mkdir()
    (away / "victim").write_text("damaged")
    (project.path / "link").symlink_to(away)
    good = md5((project.path / "model.txt").read_bytes())
    damage(place(project, good))
    out = {"cmd": "true", "outs": ["link/victim"]}
    for oid in (good, f"{'../' * 20}{away}/victim", "..", f"{good[:2]}/../../../../../../raw.txt"):
        stages = {**PIPELINE, "evil": out}
        project.write({"dvc.yaml": json.dumps({"stages": stages})})
        entry: dict[str, Any] = {
            **out,
            "outs": [{"path": "link/victim", "md5": oid, "hash": "md5"}],
        }
        lock = {"schema": "2.0", "stages": {"evil": entry}}
        project.write({"dvc.lock": json.dumps(lock)})
        project.tool("heal")
        assert contents(away) == {"victim": b"damaged"}
        assert (project.path / "raw.txt").read_text() == "1\n"


def test_list_of_files_that_lead_out(project: Repository, tmp_path: Path) -> None:
    """Paths in a folder's list in DVC's cache, which anyone may have written, lead nowhere."""
    (tmp_path / "victim").write_text("damaged")
    (listed,) = project.path.glob(".dvc/cache/files/md5/*/*.dir")
    files = json.loads(listed.read_text())
    damage(place(project, files[0]["md5"]))
    evil = json.dumps(
        [{**files[0], "relpath": path} for path in ("../../victim", f"{tmp_path}/victim")]
    )
    oid = md5(evil.encode())
    place(project, oid).parent.mkdir(exist_ok=True)
    place(project, f"{oid}.dir").write_text(evil)
    project.write(
        {"dvc.lock": project.lock.replace(f"{listed.parent.name}{listed.name}", f"{oid}.dir")}
    )
    project.tool("heal")
    assert (tmp_path / "victim").read_text() == "damaged"


def test_links_in_the_way(project: Repository, tmp_path: Path) -> None:
    """Symbolic links in place of the files to repair are not followed."""
    (tmp_path / "mine").write_text("mine")
    for name in ("dvc.lock", "dvc.lock.damaged", ".dvc/tmp/rwlock"):
        path = project.path / name
        path.unlink(missing_ok=True)
        path.symlink_to(tmp_path / "mine")
    assert healed(project) == [".dvc/tmp/rwlock", "dvc.lock"]
    assert (tmp_path / "mine").read_text() == "mine"
    assert not (project.path / "dvc.lock").is_symlink()
    assert project.repro() == []
