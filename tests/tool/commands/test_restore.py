"""`dvc-mlflow restore` brings back the code, params, data and outputs of a row."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from support.clone import environment
from support.following import following
from support.pipelines import Repository, last, repository, reproduce, train
from support.restoring import (
    copy_with_remotes,
    folder_of,
    no_worktree,
    restore,
    restored,
    with_remotes,
)
from support.waiting import wait

pytestmark = [
    pytest.mark.pipeline,
    pytest.mark.filterwarnings("ignore"),  # warnings from MLflow
]


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """A recorded pipeline with a git and a DVC remote, whose first result is committed."""
    return with_remotes(tmp_path_factory.mktemp("made"))


@pytest.fixture
def project(made: Repository, tmp_path: Path) -> Repository:
    """A copy of that pipeline with its store and its remotes."""
    return copy_with_remotes(made, tmp_path)


@pytest.mark.versions
def test_clean(project: Repository) -> None:
    """A committed result is restored from its commit's tree; a second call says that it exists."""
    run = last(project)
    assert run.data.tags["dvc-mlflow.tree"] == project.git("rev-parse", "HEAD^{tree}")
    project.set({"rate": 9})
    project.write({"model.txt": "mine\n", "notes.txt": "mine\n"})
    folder = restored(project, run)
    assert (folder.path / "params.yaml").read_text() == project.git(
        "show", "HEAD:params.yaml"
    ) + "\n"
    said = restore(project, run)
    assert said.out.splitlines()[0].endswith(": already exists")
    assert (project.path / "model.txt").read_text() == "mine\n"
    assert "restored" not in project.git("status", "--porcelain")


def test_changed_code(project: Repository) -> None:
    """Uncommitted code is restored: a changed file, and a new one below a dep."""
    stages = {"train": {**train("raw.txt"), "deps": ["raw.txt", "lib"]}}
    project.write({"dvc.yaml": json.dumps({"stages": stages}), "lib/new.py": "x = 1\n"})
    reproduce(project)
    run = last(project)
    shutil.rmtree(project.path / "lib")
    project.git("checkout", "-q", "dvc.yaml", "dvc.lock")
    folder = restored(project, run)
    assert (folder.path / "lib/new.py").read_text() == "x = 1\n"


@pytest.mark.rest
def test_experiments(project: Repository) -> None:
    """An experiment's row has the tree of the commit that DVC makes of it."""
    project.dvc("exp", "run", "-q", "-S", "rate=2", "-n", "here")
    project.dvc("exp", "run", "-q", "--temp", "-S", "rate=3", "-n", "copy")
    project.record("--all")
    for rate, name in (("2", "here"), ("3", "copy")):
        (run,) = [r for r in project.rows() if r.data.params["rate"] == rate]
        ref = project.git("for-each-ref", "--format=%(objectname)", f"refs/exps/**/{name}")
        assert run.data.tags["dvc-mlflow.tree"] == project.git("rev-parse", f"{ref}^{{tree}}"), name
        folder = restored(project, run)
        assert f"rate: {rate}\n" in (folder.path / "params.yaml").read_text()
    copied = next(r for r in project.rows() if r.data.params["rate"] == "3")
    project.git("update-ref", "-d", f"refs/rows/{copied.data.tags['dvc-mlflow.kept']}")
    shutil.rmtree(project.path / "restored")
    restored(project, copied)  # by DVC's own commit


@pytest.mark.rest
@pytest.mark.parametrize("where", [[], ["--temp"]], ids=["here", "copy"])
def test_experiment_that_was_followed(project: Repository, where: list[str]) -> None:
    """The commit of an experiment keeps what a ref has kept while it ran; no such ref remains."""
    file, gates = project.path / "dvc.yaml", project.path.parent
    given = json.loads(file.read_text())
    for name in ("train", "a"):
        gate = f"until [ -e {gates / name} ]; do sleep 0.1; done"
        given["stages"][name]["cmd"] = f"{gate}; {given['stages'][name]['cmd']}"
    file.write_text(json.dumps(given))
    project.commit("Stages that wait")
    before, n = project.git("for-each-ref", "refs/rows"), len(project.rows())
    command = ["dvc", "exp", "run", "-q", *where, "-S", "rate=2", "-n", "mine"]
    with following(project):
        running = subprocess.Popen(command, cwd=project.path, env=environment())
        wait(lambda: len(project.rows()) > n)
        (gates / "train").touch()
        if not where:  # of a copy, only DVC's own commit has results
            wait(lambda: project.git("for-each-ref", "refs/rows") != before)
        (gates / "a").touch()
        assert running.wait(60) == 0
        project.record("--all")
    assert project.git("for-each-ref", "refs/rows") == before
    (run,) = [r for r in project.rows() if r.data.params["rate"] == "2"]
    assert run.info.status == "FINISHED"
    ref = project.git("for-each-ref", "--format=%(objectname)", "refs/exps/**/mine")
    assert run.data.tags["dvc-mlflow.kept"] == ref
    restored(project, run)


@pytest.mark.rest
def test_two_evaluations_of_one_row(project: Repository) -> None:
    """A row whose stages ran one after the other is restored with all of them."""
    project.set({"rate": 2})
    reproduce(project, {}, "train")
    reproduce(project)
    run = last(project)
    folder = restored(project, run)
    assert (folder.path / "a.json").exists()


def test_worktree_and_folders(tmp_path: Path) -> None:
    """A nested project is restored, also if its row comes from a git worktree."""
    project = repository(tmp_path / "project", {}, files={"inner/raw.txt": "1\n"})
    inner = Repository(project.path / "inner")
    inner.dvc("init", "-q", "--subdir")
    stages = {"stages": {"train": train("raw.txt")}}
    inner.write({"dvc.yaml": json.dumps(stages), "params.yaml": "rate: 1\n"})
    project.commit("A nested project")
    project.git("worktree", "add", "-q", "../tree")
    reproduce(inner)
    said = restore(project, last(project))
    assert (said.status, said.error) == (0, "")
    folder = folder_of(project, said)
    assert folder.path.name == "inner"
    assert "up to date" in folder.dvc("status").stdout
    assert (folder.path / "model.txt").exists()
    tree = Repository(tmp_path / "tree/inner")
    tree.dvc("cache", "dir", "-q", "--local", f"{inner.path}/.dvc/cache")  # as DVC recommends
    reproduce(tree, {"rate": 2})
    assert len(project.rows()) == 2
    assert restore(project, last(project)).status == 0


def test_moved_and_copied(project: Repository) -> None:
    """A folder that has lost its repository, or is another one's, is named and stays as it is.

    Git's own command brings back one that was moved with its repository.
    """
    run = last(project)
    name = restored(project, run).path.name
    copied = Repository(project.path.with_name("copied"))
    shutil.copytree(project.path, copied.path, symlinks=True)
    said, place = restore(copied, run), copied.path / "restored" / name
    assert (said.status, said.error) == (1, no_worktree(place))
    shutil.rmtree(place)
    assert restore(copied, run).status == 0
    assert "already exists" in restore(project, run).out
    moved = Repository(project.path.rename(project.path.with_name("moved")))
    said, place = restore(moved, run), moved.path / "restored" / name
    assert (said.status, said.error) == (1, no_worktree(place))
    moved.run("git", "worktree", "repair", place)
    said = restore(moved, run)
    assert (said.status, said.error) == (0, ""), said
    assert "already exists" in said.out


def clone_of(project: Repository, *options: str) -> Repository:
    """Clone a project's git remote into an empty folder, with the project's MLflow store."""
    path = project.path.with_name("colleague")
    subprocess.run(
        ["git", "clone", "-q", *options, f"file://{project.path.parent}/remote.git", path],
        env=environment(),
        check=True,
    )
    (path / ".dvc/tmp").mkdir(parents=True, exist_ok=True)
    for name in ("mlflow.db", "mlartifacts"):
        source = project.path / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, path / name)
    return Repository(path)


@pytest.mark.rest
@pytest.mark.parametrize("shared", ["commit", "experiment", "ref"])
def test_colleague(project: Repository, shared: str) -> None:
    """A colleague restores a row from the git remote, with its outputs from DVC's remote."""
    project.set({"rate": 2})
    if shared == "experiment":
        project.dvc("exp", "run", "-q", "-n", "mine")
        project.record("--all")
    else:
        reproduce(project)
    run = last(project)
    if shared == "commit":
        project.commit("My result")
    if shared != "experiment":  # `dvc exp push` sends them
        project.dvc("push", "-q")
    project.git("push", "-q", "origin", "main")
    if shared == "experiment":
        project.dvc("exp", "push", "-q", "origin", "mine")
    elif shared == "ref":
        project.git("push", "-q", "origin", f"refs/rows/{run.data.tags['dvc-mlflow.kept']}")
    colleague = clone_of(project, *(["--depth", "1"] if shared == "ref" else []))
    if shared == "experiment":
        colleague.dvc("exp", "pull", "-q", "origin", "mine")
    restored(colleague, run)


@pytest.mark.rest
def test_without_caches(project: Repository) -> None:
    """A row is restored after `git gc`, and its outputs from DVC's remote without its cache."""
    reproduce(project, {"rate": 2})
    project.dvc("push", "-q")
    run = last(project)
    project.git("checkout", "-q", ".")
    project.dvc("checkout", "-q")
    project.dvc("gc", "-q", "-f", "-w")
    project.git("reflog", "expire", "--expire=now", "--all")
    project.git("gc", "-q", "--prune=now")
    restored(project, run)
    shutil.rmtree(project.path / "restored")
    shutil.rmtree(project.path / ".dvc/cache")
    restored(project, run)


def test_nothing_of_the_users(project: Repository) -> None:
    """Keeping a result runs no hook, and leaves index, work tree and branches as they are."""
    for hook in ("reference-transaction", "post-index-change", "post-commit", "post-checkout"):
        file = project.path / ".git/hooks" / hook
        file.write_text(f"#!/bin/sh\necho {hook} >> {project.path}/hooked\nexit 1\n")
        file.chmod(0o755)
    project.write({"staged.txt": "1\n"})
    (project.path / ".git/hooks/reference-transaction").chmod(0o644)
    project.git("add", "staged.txt")
    (project.path / ".git/hooks/reference-transaction").chmod(0o755)
    (project.path / "hooked").unlink(missing_ok=True)
    project.set({"a": 2})
    before = project.git("diff", "--cached"), project.git("branch", "-v")
    reproduce(project)
    assert (project.git("diff", "--cached"), project.git("branch", "-v")) == before
    assert "refs/rows/" in project.git("for-each-ref")
    assert restore(project, last(project)).status == 0
    hooked = project.path / "hooked"
    assert not hooked.exists() or "reference-transaction" not in hooked.read_text()


def test_pull_in_a_restored_folder(project: Repository) -> None:
    """Plain `dvc pull` works in a restored folder, with remotes that only this clone knows."""
    project.dvc("remote", "add", "-q", "--local", "-d", "own", str(project.path.parent / "own"))
    project.dvc("push", "-q")
    folder = restored(project, last(project))
    (folder.path / "model.txt").unlink()
    shutil.rmtree(project.path / ".dvc/cache")
    folder.dvc("pull", "-q")
    assert (folder.path / "model.txt").exists()
