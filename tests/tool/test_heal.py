"""`dvc-mlflow heal`: what a killed `dvc` or git leaves behind, and nothing else."""

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from clone import environment
from pipelines import Repository, Stages, evaluate, finished, makes, repository, train

pytestmark = pytest.mark.pipeline

PIPELINE: Stages = {
    "train": train("raw.txt"),
    "split": makes({"parts/one": "1\n", "parts/two": "2\n"}, outs=["parts"]),
    "a": evaluate("a"),
}
TABLES = (".dvc/tmp/rwlock", ".dvc/tmp/exps/rwlock")


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """A pipeline that has run, with its results committed."""
    return finished(tmp_path_factory.mktemp("made") / "project", PIPELINE)


def heal(project: Repository, *folders: str) -> list[str]:
    """Run `dvc-mlflow heal` in this process, and return what it says."""
    said = project.tool("heal", *folders)
    assert (said.status, said.error) == (0, ""), said
    return said.out.splitlines()


def healed(project: Repository, *folders: str) -> list[str]:
    """Return the files that `dvc-mlflow heal` names."""
    paths = [line.split(": ")[0] for line in heal(project, *folders)]
    return [path.removeprefix(f"{project.path}/") for path in paths]


def contents(folder: Path) -> dict[str, bytes]:
    """Return the files below a folder but those of git, and DVC's own in .dvc/tmp."""
    return {
        f"{path.relative_to(folder)}": path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not {".git", "tmp"} & {*path.relative_to(folder).parts}
    }


def md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def place(project: Repository, oid: str) -> Path:
    """Return the place of an md5 in DVC's cache."""
    return project.path / ".dvc/cache/files/md5" / oid[:2] / oid[2:]


def damage(path: Path, content: bytes = b"damaged") -> None:
    """Overwrite a file in DVC's cache, which is read-only."""
    path.chmod(0o644)
    path.write_bytes(content)
    path.chmod(0o444)


# Cut off


def test_files_that_dvc_writes_in_place(project: Repository) -> None:
    """Files that a kill cut off are repaired: nothing runs again, and no edit is touched."""
    project.write({"notes.txt": "an edit"})
    (project.path / ".dvc/tmp/exps").mkdir(exist_ok=True)
    before, lock = contents(project.path), project.lock
    for length in (0, 10, 40, 100):
        project.write({"dvc.lock": lock[:length], ".git/index.lock": "cut off"})
        project.write(dict.fromkeys(TABLES, '{"read": {}'[: length % 11]))
        assert healed(project) == [".git/index.lock", *TABLES, "dvc.lock"]
        assert (project.path / "dvc.lock.damaged").read_text() == lock[:length]
        (project.path / "dvc.lock.damaged").unlink()
        assert contents(project.path) == before
        assert project.git("status", "--porcelain") == "?? notes.txt"
    assert project.repro() == []
    assert heal(project) == []


def test_lock_file_that_git_does_not_have(tmp_path: Path) -> None:
    """Where git has no dvc.lock, or there is no git, the damaged one is moved aside."""
    project = repository(tmp_path / "project", PIPELINE)
    for with_git in (True, False):
        if not with_git:
            shutil.rmtree(project.path / ".git")
            project.dvc("config", "core.no_scm", "true")
        project.write({"dvc.lock": "schema: '2"})
        (line,) = heal(project)
        assert line.endswith("moved to dvc.lock.damaged, and git has none")
        assert not (project.path / "dvc.lock").exists()
        assert heal(project) == []


@pytest.mark.parametrize("kind", ["merge", "committed", "ignored", "newer"])
def test_lock_files_that_no_kill_has_made(project: Repository, kind: str) -> None:
    """A merge's conflict, and whatever is committed or can be read, is left alone."""
    if kind == "merge":
        project.write({"dvc.lock": f"<<<<<<< HEAD\n{project.lock}=======\n>>>>>>> other\n"})
    elif kind == "ignored":
        project.write({".gitignore": "dvc.lock\n"})
        project.git("rm", "-q", "--cached", "dvc.lock")
    else:
        content = "schema: '9.0'\nstages: {}\n" if kind == "newer" else "not yaml: ["
        project.write({"dvc.lock": content})
        project.commit("Another dvc.lock")
    before = contents(project.path)
    said = project.tool("heal")
    assert said.out == ""
    assert contents(project.path) == before


def test_folders(tmp_path: Path) -> None:
    """A dvc.yaml in a folder has a dvc.lock; a nested project is repaired where it is named."""
    project = repository(tmp_path / "project", {}, files={"part/raw.txt": "1\n"})
    project.run("sh", "-c", "mkdir inner && cd inner && dvc init -q --subdir")
    stages = json.dumps({"stages": {"one": makes({"one.txt": "1\n"}, outs=["one.txt"])}})
    project.write({"part/dvc.yaml": stages, "inner/dvc.yaml": stages, "venv/dvc.yaml": stages})
    project.write({".gitignore": "/venv\n"})
    project.dvc("repro", "-q", "-P")
    project.run("sh", "-c", "cd inner && dvc repro -q")
    project.commit("Results")
    locks = ["part/dvc.lock", "inner/dvc.lock", "venv/dvc.lock"]
    kept = project.git("ls-files", "-s")

    def cut() -> None:
        project.write(dict.fromkeys(locks, "sch"))

    cut()
    assert healed(project) == locks[:1]
    cut()
    assert healed(project, "inner") == locks[1:2]
    cut()
    assert healed(project, ".", "inner") == locks[:2]
    assert heal(project, ".", "inner") == []
    assert (project.path / "venv/dvc.lock").read_text() == "sch"
    project.git("add", "part/dvc.lock", "inner/dvc.lock")
    assert project.git("ls-files", "-s") == kept
    for folder in ("nowhere", "raw.txt"):
        assert project.tool("heal", folder) == ("", f"dvc-mlflow: {folder}: no such folder\n", 1)


HOLDER = """
import shutil, sys, time
from dvc.repo import Repo

with Repo().lock:
    print("locked", flush=True)
    time.sleep(float(sys.argv[1]))
    shutil.copyfile("whole", "dvc.lock")
"""


@pytest.mark.parametrize("hardlink", ["false", "true"])
@pytest.mark.parametrize("seconds", [1, 60])
def test_beside_a_running_dvc(project: Repository, seconds: int, hardlink: str) -> None:
    """While another `dvc` holds its lock, the dvc.lock that it may be writing is not touched."""
    project.dvc("config", "core.hardlink_lock", hardlink)
    (project.path / ".dvc/tmp/lock").unlink()  # of the other kind
    project.write({"whole": f"{project.lock}# as it writes it\n", "dvc.lock": "sch"})
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, f"{seconds}"],
        cwd=project.path,
        env=environment(),
        stdout=subprocess.PIPE,
    ) as holder:
        assert holder.stdout
        assert holder.stdout.readline()
        said = project.tool("heal")
        holder.kill()
    if seconds == 1:
        assert said == ("", "", 0)
        assert project.lock == (project.path / "whole").read_text()
    else:
        assert (said.status, said.out) == (1, "")
        assert said.error.startswith("dvc-mlflow: Unable to acquire lock.")
        assert said.error.count("\n") == 1
        assert project.lock == "sch"


# git's index


@pytest.mark.parametrize("name", ["git", "dvc"])
def test_beside_a_live_git(project: Repository, name: str, tmp_path: Path) -> None:
    """An index.lock that a running git, or a `dvc`, may have made is left alone, until it ends."""
    lock = project.path / ".git" / "index.lock"
    lock.write_text("in use")
    (tmp_path / name).symlink_to("/bin/sleep")
    with subprocess.Popen([tmp_path / name, "60"], cwd=project.path / ".dvc") as process:
        assert heal(project) == []
        assert lock.exists()
        process.kill()
        process.wait()
        assert healed(project) == [".git/index.lock"]


def test_in_a_hook(project: Repository) -> None:
    """The git that runs a hook holds the index; the words of a shell mean nothing."""
    hook = project.path / ".git/hooks/pre-commit"
    hook.write_text("#!/bin/sh\ndvc-mlflow heal\n")
    hook.chmod(0o755)
    project.write({"notes.txt": "1"})
    project.git("add", "notes.txt")
    done = project.run("git", "commit", "-q", "-m", "Try")
    assert done.stdout + done.stderr == ""
    (project.path / ".git/index.lock").write_text("")
    assert "removed" in project.run("sh", "-c", "true git; dvc-mlflow heal; true").stdout


def test_index_of_a_worktree(project: Repository, tmp_path: Path) -> None:
    """A git worktree has an index of its own."""
    project.git("worktree", "add", "-q", f"{tmp_path}/tree")
    lock = project.path / ".git/worktrees/tree/index.lock"
    lock.write_text("")
    assert heal(Repository(tmp_path / "tree")) == [f"{lock}: was left by a killed process; removed"]


# DVC's cache


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
    """A file that is not the damaged one's copy stays."""
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


def test_damaged_folder(project: Repository) -> None:
    """Of a folder, both the files and their list are checked."""
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


def test_data(tmp_path: Path) -> None:
    """What a .dvc file tracks is checked, too; `dvc pull` brings it back."""
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


# What others have written


def test_paths_that_lead_out(project: Repository, tmp_path: Path) -> None:
    """A dvc.lock or a folder's list with other md5s and paths moves and deletes nothing outside."""
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
    """Paths in a folder's list in DVC's cache, which anybody can have written, lead nowhere."""
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
    """Links in place of the files that are written or moved are not followed."""
    (tmp_path / "mine").write_text("mine")
    for name in ("dvc.lock", "dvc.lock.damaged", ".dvc/tmp/rwlock"):
        path = project.path / name
        path.unlink(missing_ok=True)
        path.symlink_to(tmp_path / "mine")
    assert healed(project) == [".dvc/tmp/rwlock", "dvc.lock"]
    assert (tmp_path / "mine").read_text() == "mine"
    assert not (project.path / "dvc.lock").is_symlink()
    assert project.repro() == []
