"""`dvc-mlflow restore` checks what it restores, and no row can make it do anything else."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from support.pipelines import Repository, last, repository, reproduce, train
from support.restoring import copy_with_remotes, restore, restored, with_remotes

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


def test_data_that_is_gone(tmp_path: Path) -> None:
    """If data is gone, one line says which, where `restore` looked, and what to do."""
    stage: dict[str, Any] = {"cmd": "head -c 2000000 /dev/zero > big; echo '{\"n\": 1}' > n.json"}
    stage |= {"outs": ["big"], "metrics": [{"n.json": {"cache": False}}]}
    project = repository(tmp_path / "project", {"one": stage})
    reproduce(project)
    run = last(project)
    shutil.rmtree(project.path / ".dvc/cache")
    said = restore(project, run)
    assert said.status == 1
    (line,) = said.error.splitlines()
    assert (
        f": big (md5 {run.data.tags['md5.big']}) is missing: neither git nor DVC's cache has it, "
        in line
    )
    assert "and there is no default DVC remote; `dvc exp pull` or `dvc repro` may help" in line


def test_corrupted_cache(project: Repository) -> None:
    """A damaged file in DVC's cache, which DVC calls up to date if it is protected, is missing."""
    run = last(project)
    md5 = run.data.tags["md5.model.txt"]
    cached = project.path / ".dvc/cache/files/md5" / md5[:2] / md5[2:]
    intact = cached.read_bytes()
    for mode in (0o444, 0o644):
        cached.unlink(missing_ok=True)
        cached.write_text("damaged\n")
        cached.chmod(mode)
        said = restore(project, run)
        assert said.status == 1
        assert f": model.txt (md5 {md5}) is missing: " in said.error
        assert not [*project.path.glob("restored/*/model.txt")]
    cached.unlink(missing_ok=True)
    cached.write_bytes(intact)
    assert restore(project, run).status == 0


@pytest.mark.parametrize("folder", ["..", "/etc", "a/../../b"])
def test_folder_that_leads_out(project: Repository, folder: str) -> None:
    """A row whose folder is outside the repository, as somebody can write it, is refused."""
    run = last(project)
    project.client.set_tag(run.info.run_id, "folder", folder)
    said = restore(project, run)
    line = f"its folder {folder!r} leads out of the repository"
    assert (said.status, said.error.count("\n"), line in said.error) == (1, 1, True), said
    assert not (project.path / "restored").exists()


def test_damaged_remote(project: Repository) -> None:
    """A damaged file in a remote counts for nothing."""
    project.dvc("push", "-q")
    run = last(project)
    md5 = run.data.tags["md5.model.txt"]
    file = project.path.parent / "store/files/md5" / md5[:2] / md5[2:]
    file.chmod(0o644)
    file.write_text("damaged\n")
    shutil.rmtree(project.path / ".dvc/cache")
    project.git("update-ref", "-d", f"refs/rows/{run.data.tags['dvc-mlflow.kept']}")
    said = restore(project, run)
    assert said.status == 1
    assert f": model.txt (md5 {md5}) is missing: neither git nor DVC's cache has it, " in said.error
    assert not [*project.path.glob("restored/*/model.txt")]


def test_commit_that_only_a_reflog_has(project: Repository) -> None:
    """A tree that no branch, tag, experiment or row of this clone names is not checked out."""
    project.write({"secret.txt": "s"})
    project.git("add", "secret.txt")
    project.git("commit", "-q", "-m", "Secret")
    tree = project.git("rev-parse", "HEAD^{tree}")
    commit = project.git("rev-parse", "HEAD")
    project.git("reset", "-q", "--hard", "HEAD~1")
    run = last(project)
    project.client.set_tag(run.info.run_id, "dvc-mlflow.tree", tree)
    project.client.set_tag(run.info.run_id, "dvc-mlflow.kept", commit)
    said = restore(project, run)
    assert said.status == 1
    assert "is neither in this clone nor in refs/rows of its git remote" in said.error


def test_run_of_a_script(project: Repository) -> None:
    """A run that a script has made is refused in one line."""
    run = project.client.create_run(last(project).info.experiment_id)
    said, rule = restore(project, run.info.run_id), "this row has no result to restore"
    line = f"dvc-mlflow: {run.info.run_id}: {rule}; it is RUNNING\n"
    assert (said.status, said.error) == (1, line)


def test_what_cannot_be_kept(tmp_path: Path) -> None:
    """Files below a dep that cannot be kept are named on stderr and in the row."""
    stages = {"train": {**train("raw.txt"), "deps": ["raw.txt", "lib"]}}
    project = repository(tmp_path / "project", stages, files={"lib/code.py": ""})
    project.write({"lib/large.bin": "x" * 1_500_000})
    project.run("git", "init", "-q", "lib/other")
    project.write({"lib/other/file": "1"})
    project.dvc("repro", "-q")
    said = project.record()
    lacks = last(project).data.tags["dvc-mlflow.lacks"]
    for line in ("lib/large.bin: it is larger than 1,000,000 bytes", "lib/other/: it is a git"):
        assert line in said.error
        assert line in lacks


def test_forget(project: Repository) -> None:
    """`forget` deletes a row and the refs that only it needs; another row keeps its own."""
    first = last(project)
    project.set({"a": 2})
    reproduce(project)
    second = last(project)
    own = {second.data.tags["dvc-mlflow.kept"]} - {first.data.tags["dvc-mlflow.kept"]}
    said = restore(project, second, "forget")
    assert said.status == 0
    assert [run.info.run_id for run in project.rows()] == [first.info.run_id]
    refs = project.git("for-each-ref", "--format=%(refname)", "refs/rows")
    assert all(f"refs/rows/{commit}" not in refs for commit in own)
    restored(project, first)


def test_remote_of_another_kind(project: Repository) -> None:
    """A row is restored if its commit names a remote whose settings do not go with today's."""
    run = last(project)
    project.dvc("remote", "modify", "-q", "team", "url", "s3://bucket/path")
    project.dvc("remote", "modify", "-q", "team", "profile", "mine")
    project.commit("A remote on S3")
    project.set({"a": 2})
    reproduce(project)
    later = last(project)
    project.dvc("remote", "add", "-q", "-f", "-d", "team", "../store")
    project.commit("The old remote")
    restored(project, later)
    restored(project, run)
