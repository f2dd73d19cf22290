"""tools/heal.py repairs files that a kill cut off, and touches nothing that is in use."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from support.clone import contents, environment
from support.kills import heal, healed, run_heal
from support.pipelines import Repository, evaluate, finished, makes, repository, train

pytestmark = pytest.mark.pipeline

PIPELINE = {
    "train": train("raw.txt"),
    "split": makes({"parts/one": "1\n", "parts/two": "2\n"}, outs=["parts"]),
    "a": evaluate("a"),
}
TABLES = (".dvc/tmp/rwlock", ".dvc/tmp/exps/rwlock")


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """A pipeline that has run, with its results committed."""
    return finished(tmp_path_factory.mktemp("made") / "project", PIPELINE)


def test_files_that_dvc_writes_in_place(project: Repository) -> None:
    """Files that a kill cut off are repaired: nothing runs again, and no edit is touched."""
    project.write({"notes.txt": "an edit"})
    (project.path / ".dvc/tmp/exps").mkdir(exist_ok=True)
    before, lock = contents(project.path, ".git", "tmp"), project.lock
    for length in (0, 40):
        project.write({"dvc.lock": lock[:length], ".git/index.lock": "cut off"})
        project.write(dict.fromkeys(TABLES, '{"read": {}'[: length % 11]))
        assert healed(project) == [".git/index.lock", *TABLES, "dvc.lock"]
        assert (project.path / "dvc.lock.damaged").read_text() == lock[:length]
        (project.path / "dvc.lock.damaged").unlink()
        assert contents(project.path, ".git", "tmp") == before
        assert project.git("status", "--porcelain") == "?? notes.txt"
    assert "up to date" in project.dvc("repro").stdout
    assert heal(project) == []


def test_lock_file_that_git_does_not_have(project: Repository) -> None:
    """Where git has no dvc.lock, the damaged one is moved aside."""
    project.git("rm", "-q", "--cached", "dvc.lock")
    project.git("commit", "-q", "-m", "Without results")
    project.write({"dvc.lock": "schema: '2"})
    (line,) = heal(project)
    assert line.endswith("moved to dvc.lock.damaged, and git has none")
    assert not (project.path / "dvc.lock").exists()
    assert heal(project) == []


@pytest.mark.parametrize("kind", ["merge", "committed", "ignored", "newer"])
def test_lock_files_that_no_kill_has_made(project: Repository, kind: str) -> None:
    """A merge conflict, and a dvc.lock that is committed or readable, is left alone."""
    if kind == "merge":
        project.write({"dvc.lock": f"<<<<<<< HEAD\n{project.lock}=======\n>>>>>>> other\n"})
    elif kind == "ignored":
        project.write({".gitignore": "dvc.lock\n"})
        project.git("rm", "-q", "--cached", "dvc.lock")
    else:
        content = "schema: '9.0'\nstages: {}\n" if kind == "newer" else "not yaml: ["
        project.write({"dvc.lock": content})
        project.commit("Another dvc.lock")
    before = contents(project.path, ".git", "tmp")
    assert heal(project) == []
    assert contents(project.path, ".git", "tmp") == before


def test_folders(tmp_path: Path) -> None:
    """The dvc.lock of a subfolder is repaired; that of a nested project only if it is named."""
    project = repository(tmp_path / "project", {}, files={"part/raw.txt": "1\n"})
    project.run("sh", "-c", "mkdir inner && cd inner && dvc init -q --subdir")
    stages = json.dumps({"stages": {"one": makes({"one.txt": "1\n"}, outs=["one.txt"])}})
    project.write({"part/dvc.yaml": stages, "inner/dvc.yaml": stages, "venv/dvc.yaml": stages})
    locks = ["part/dvc.lock", "inner/dvc.lock", "venv/dvc.lock"]
    project.write({".gitignore": "/venv\n", **dict.fromkeys(locks, "schema: '2.0'\n")})
    project.commit("Results")
    project.write(dict.fromkeys(locks, "sch"))
    assert healed(project) == locks[:1]
    assert healed(project, ".", "inner") == locks[1:2]
    assert heal(project, ".", "inner") == []
    assert (project.path / "venv/dvc.lock").read_text() == "sch"
    assert (
        project.git("status", "--porcelain")
        == "?? inner/dvc.lock.damaged\n?? part/dvc.lock.damaged"
    )
    done = run_heal(project, "nowhere")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("heal: ")
    assert "nowhere" in done.stderr
    assert done.stderr.count("\n") == 1


HOLDER = """
import sys
from dvc.repo import Repo

with Repo().lock:
    print("locked", flush=True)
    sys.stdin.read()
"""


def test_beside_a_running_dvc(project: Repository) -> None:
    """While another `dvc` holds its lock, the dvc.lock that it may be writing is not touched."""
    project.write({"dvc.lock": "sch"})
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER],
        cwd=project.path,
        env=environment(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as holder:
        assert holder.stdout
        assert holder.stdout.readline()
        done = run_heal(project)
        holder.kill()
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("heal: Unable to acquire lock.")
    assert done.stderr.count("\n") == 1
    assert project.lock == "sch"


def test_beside_a_live_git(project: Repository, tmp_path: Path) -> None:
    """An index.lock is left alone while a git or `dvc` that may have made it is running.

    A program whose name only contains "git" does not count.
    """
    lock = project.path / ".git" / "index.lock"
    for name, removed in [("digits", [".git/index.lock"]), ("git", []), ("dvc", [])]:
        lock.write_text("in use")
        (tmp_path / name).symlink_to("/bin/sleep")
        with subprocess.Popen([tmp_path / name, "600"], cwd=project.path / ".dvc") as process:
            assert healed(project) == removed
            process.kill()
    assert healed(project) == [".git/index.lock"]


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
    assert "up to date" in project.dvc("repro").stdout
