"""`dvc-mlflow restore` brings back a row's code, params, data and outputs, and checks them.

No row can make it do anything else.
"""

import shutil
from pathlib import Path

import pytest

from dvc_mlflow.pipeline.tags import FOLDER, KEPT, MD5, NAME, TREE
from support.locked import locked
from support.pipelines import Repository, last, reproduce
from support.promoting import copy_with_remotes, restore, restored, with_remotes

pytestmark = pytest.mark.pipeline


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
    """A committed result is restored from its commit's tree; a second call says that it exists.

    Plain `dvc pull` works in its folder, with remotes that only this clone knows.
    """
    run = last(project)
    assert run.data.tags[TREE] == project.git("rev-parse", "HEAD^{tree}")
    project.dvc("remote", "add", "-q", "--local", "-d", "own", str(project.path.parent / "own"))
    project.dvc("push", "-q")
    project.set({"rate": 9})
    project.write({"model.txt": "mine\n", "notes.txt": "mine\n"})
    folder = restored(project, run)
    params = project.git("show", "HEAD:params.yaml")
    assert (folder.path / "params.yaml").read_text() == f"{params}\n"
    assert restore(project, run).out.splitlines()[0].endswith(": already exists")
    assert (project.path / "model.txt").read_text() == "mine\n"
    assert "restored" not in project.git("status", "--porcelain")
    (folder.path / "model.txt").unlink()
    shutil.rmtree(project.path / ".dvc/cache")
    folder.dvc("pull", "-q")
    assert (folder.path / "model.txt").exists()


def test_names_of_folders(project: Repository) -> None:
    """Two rows with the same name get two folders, and each keeps its own.

    It is found again also where DVC links files to its cache.
    """
    reproduce(project, {"rate": 2})
    rows = project.rows()
    for run in rows:
        project.client.set_tag(run.info.run_id, NAME, "../a b")
    project.dvc("config", "--local", "cache.type", "symlink")
    first, second = (restored(project, run).path for run in project.rows())
    assert [first.name, second.name] == [f"a-b-{run.info.run_id[:8]}" for run in rows]
    assert (second / "model.txt").is_symlink()
    assert restored(project, project.rows()[1]).path == second
    assert "rate: 2" in (second / "params.yaml").read_text()


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    """What somebody edited or added in a restored folder stays, also without DVC's cache.

    Only what differs from dvc.lock is named.
    """
    stage = {"cmd": "run", "deps": ["raw.txt"], "outs": ["d", "o.txt"], "metrics": ["m.json"]}
    files = {"d/x": "1", "o.txt": "1\n", "m.json": '{"n": 1}', "code.py": "\n"}
    project = locked(tmp_path / "project", {"one": stage}, files=files)
    project.add_store()
    project.commit()
    project.record()
    (run,) = project.rows()
    place = restored(project, run).path
    (place / "o.txt").unlink()  # it can be a link to DVC's cache
    mine = ["d/mine", "code.py"]
    for name in [*mine, "o.txt"]:
        (place / name).write_text("mine\n")
    said = restore(project, run)
    (line,) = said.error.splitlines()
    assert line.endswith(" is missing: another one is here; delete that, and restore again")
    assert (place / "o.txt").read_text() == "mine\n"
    (place / "o.txt").unlink()
    assert restore(project, run).status == 0
    shutil.rmtree(project.path / ".dvc/cache")
    restore(project, run)
    texts = {"d/x": "1", "o.txt": "1\n", **dict.fromkeys(mine, "mine\n")}
    assert {name: (place / name).read_text() for name in texts} == texts


def test_damaged(project: Repository) -> None:
    """A damaged file counts for nothing, in a remote or in DVC's cache, write-protected or not."""
    project.dvc("push", "-q")
    run = last(project)
    md5 = run.data.tags[f"{MD5}model.txt"]
    cache = project.path / ".dvc/cache"
    cached, pushed = (
        folder / "files/md5" / md5[:2] / md5[2:]
        for folder in (cache, project.path.parent / "store")
    )
    intact = cached.read_bytes()
    pushed.chmod(0o644)
    pushed.write_text("damaged\n")
    for mode in (0o444, 0o644, None):
        shutil.rmtree(project.path / "restored", ignore_errors=True)
        cached.unlink(missing_ok=True)
        if mode:
            cached.write_text("damaged\n")
            cached.chmod(mode)
        said = restore(project, run)
        assert said.status == 1
        assert f": model.txt (md5 {md5}) is missing: neither git nor DVC's cache has" in said.error
        assert not [*project.path.glob("restored/*/model.txt")]
    cached.unlink(missing_ok=True)
    cached.write_bytes(intact)
    assert restore(project, run).status == 0


def test_refused(project: Repository) -> None:
    """What somebody can write into a store leads nowhere, and one line says why.

    Such are a folder outside of the repository, a tree that no branch, tag, experiment or row of
    this clone names, and a run that a script has made.
    """
    run = last(project)
    script = project.client.create_run(run.info.experiment_id).info.run_id
    line = f"dvc-mlflow: {script}: this row has no result to restore; it is RUNNING\n"
    assert restore(project, script) == ("", line, 1)
    for folder in ("..", "/etc", "a/../../b"):
        project.client.set_tag(run.info.run_id, FOLDER, folder)
        line = f"dvc-mlflow: {run.info.run_id}: its folder {folder!r} leads out of the repository\n"
        assert restore(project, run) == ("", line, 1)
    project.client.delete_tag(run.info.run_id, FOLDER)
    for key in (TREE, KEPT):
        project.client.set_tag(run.info.run_id, key, "f" * 40)
    said = restore(project, run)
    assert said.status == 1
    assert "is neither in this clone nor in refs/rows of its git remote" in said.error
    assert not (project.path / "restored").exists()


def test_forget(project: Repository) -> None:
    """`forget` deletes a row and the refs that only it needs; another row keeps its own."""
    first = last(project)
    reproduce(project, {"a": 2})
    second = last(project)
    commits = [run.data.tags[KEPT] for run in (first, second)]
    assert commits[1] in project.git("for-each-ref", "refs/rows")
    assert restore(project, second, "forget").status == 0
    assert [run.info.run_id for run in project.rows()] == [first.info.run_id]
    assert commits[1] not in project.git("for-each-ref", "refs/rows")
    restored(project, first)


@pytest.mark.rest
def test_colleague(project: Repository, tmp_path: Path) -> None:
    """A colleague restores rows from the git remote, with their outputs from DVC's remote.

    One is committed, one is an experiment, and one was kept by a ref, also through `git gc`.
    """
    # `dvc exp push` takes a relative path of a remote for one below `/`.
    project.dvc("remote", "modify", "-q", "team", "url", f"{tmp_path}/store")
    project.commit("A remote by its whole path")
    project.dvc("push", "-q")
    reproduce(project, {"rate": 2})
    project.dvc("push", "-q")
    kept = last(project).data.tags[KEPT]
    project.git("checkout", "-q", ".")
    project.git("reflog", "expire", "--expire=now", "--all")
    project.git("gc", "-q", "--prune=now")
    project.dvc("exp", "run", "-q", "-n", "mine", "-S", "rate=3")
    project.record("--all")
    project.dvc("exp", "push", "-q", "origin", "mine")
    project.git("push", "-q", "origin", "main", f"refs/rows/{kept}")
    remote, colleague = f"file://{tmp_path}/remote.git", Repository(tmp_path / "colleague")
    project.git("clone", "-q", remote, f"{colleague.path}")
    project.run("cp", "-r", "mlflow.db", "mlartifacts", colleague.path)
    colleague.dvc("exp", "pull", "-q", "origin", "mine")
    shutil.rmtree(colleague.path / ".dvc/cache")
    rows = project.rows()
    assert sorted(run.data.params["rate"] for run in rows) == ["1", "2", "3"]
    for run in rows:
        restored(colleague, run)


def test_nothing_of_the_users(project: Repository) -> None:
    """Keeping a result runs no hook, and leaves index, work tree and branches as they are."""
    project.write({"staged.txt": "1\n"})
    project.git("add", "staged.txt")
    for hook in ("reference-transaction", "post-index-change", "post-commit", "post-checkout"):
        file = project.path / ".git/hooks" / hook
        file.write_text(f"#!/bin/sh\necho {hook} >> {project.path}/hooked\nexit 1\n")
        file.chmod(0o755)
    before = project.git("diff", "--cached"), project.git("branch", "-v")
    reproduce(project, {"a": 2})
    assert (project.git("diff", "--cached"), project.git("branch", "-v")) == before
    assert "refs/rows/" in project.git("for-each-ref")
    assert restore(project, last(project)).status == 0
    hooked = project.path / "hooked"
    assert not hooked.exists() or "reference-transaction" not in hooked.read_text()
