"""`dvc-mlflow restore` and `forget`: a row names one git tree, and that is all it needs."""

import json
import shutil
import subprocess
from contextlib import chdir, redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from mlflow.entities import Run

from clone import Clone, environment
from dvc_mlflow.__main__ import main
from pipelines import Repository, Said, evaluate, prepare, repository, train
from test_run import recorded

pytestmark = [
    pytest.mark.pipeline,
    pytest.mark.filterwarnings("ignore"),  # what MLflow warns of in the test's process
]

PIPELINE = {"prepare": prepare(), **recorded({"train": train(), "a": evaluate("a")})}


def restore(project: Repository, run: Run | str, command: str = "restore") -> Said:
    """Run `dvc-mlflow restore` in this process."""
    out, error = StringIO(), StringIO()
    run_id = run if isinstance(run, str) else run.info.run_id
    with chdir(project.path), redirect_stdout(out), redirect_stderr(error):
        status = main([command, run_id])
    return Said(out.getvalue(), error.getvalue(), status)


def restored(project: Repository, run: Run) -> Clone:
    """Restore a row, check that all is as it says, and return its folder."""
    before = contents(project.path), project.git("status", "--porcelain"), project.table()
    said = restore(project, run)
    assert (said.status, said.error) == (0, ""), said
    assert (contents(project.path), project.git("status", "--porcelain"), project.table()) == before
    folder = Clone(project.path / said.out.splitlines()[-1].partition(":")[0])
    assert "up to date" in folder.dvc("status").stdout
    for key, md5 in run.data.tags.items():
        if key.startswith("md5."):
            here = subprocess.run(
                ["md5sum", folder.path / key.removeprefix("md5.")], capture_output=True, check=True
            )
            assert here.stdout.split()[0].decode() == md5
    return folder


def contents(path: Path) -> dict[str, bytes]:
    """Return every file but git's, DVC's and MLflow's own and what was restored."""
    own = {".git", "tmp", "cache", "restored", "mlartifacts", "mlflow.db"}
    return {
        str(file.relative_to(path)): file.read_bytes()
        for file in path.rglob("*")
        if file.is_file() and not own & {*file.relative_to(path).parts}
    }


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """A recorded pipeline with a git and a DVC remote, whose first result is committed."""
    folder = tmp_path_factory.mktemp("made")
    project = repository(folder / "project", PIPELINE, files={"code.sh": "echo 1\n"})
    project.run("git", "init", "-q", "--bare", "-b", "main", "../remote.git")
    project.git("remote", "add", "origin", "../remote.git")
    project.dvc("remote", "add", "-q", "-d", "team", "../store")
    project.commit("Remotes")
    project.dvc("repro", "-q")
    project.commit("Results")
    return project


@pytest.fixture
def project(made: Repository, tmp_path: Path) -> Repository:
    """A copy of it with its store and its remotes."""
    shutil.copytree(made.path.parent / "remote.git", tmp_path / "remote.git")
    shutil.copytree(made.path, tmp_path / "project", symlinks=True)
    return Repository(tmp_path / "project")


def last(project: Repository) -> Run:
    """Return the newest row."""
    return project.rows()[-1]


def test_clean(project: Repository) -> None:
    """A committed result: its tree is that of the commit; a second call says that it exists."""
    run = last(project)
    assert run.data.tags["tree.a"] == project.git("rev-parse", "HEAD^{tree}")
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
    """Uncommitted code comes back: a changed file, and a new one below a dep."""
    stages = {"train": {**train("raw.txt"), "deps": ["raw.txt", "lib"]}}
    project.write({"dvc.yaml": json.dumps({"stages": recorded(stages)}), "lib/new.py": "x = 1\n"})
    project.dvc("repro", "-q")
    run = last(project)
    assert run.data.tags["mlflow.source.git.dirty"] == "true"
    shutil.rmtree(project.path / "lib")
    project.git("checkout", "-q", "dvc.yaml", "dvc.lock")
    folder = restored(project, run)
    assert (folder.path / "lib/new.py").read_text() == "x = 1\n"


def test_experiments(project: Repository) -> None:
    """The tree of a row is that of the commit that DVC makes of the experiment."""
    project.dvc("exp", "run", "-q", "-S", "rate=2", "-n", "here")
    project.dvc("exp", "run", "-q", "--temp", "-S", "rate=3", "-n", "copy")
    project.dvc("exp", "run", "-q", "--queue", "-S", "rate=4", "-n", "queued")
    project.run_queue()
    for rate, name in (("2", "here"), ("3", "copy"), ("4", "queued")):
        (run,) = [r for r in project.rows() if r.data.params["rate"] == rate]
        ref = project.git("for-each-ref", "--format=%(objectname)", f"refs/exps/**/{name}")
        assert run.data.tags["tree.a"] == project.git("rev-parse", f"{ref}^{{tree}}"), name
        folder = restored(project, run)
        assert f"rate: {rate}\n" in (folder.path / "params.yaml").read_text()
    copied = next(r for r in project.rows() if r.data.params["rate"] == "3")
    project.git("update-ref", "-d", f"refs/rows/{copied.data.tags['kept.a']}")
    shutil.rmtree(project.path / "restored")
    restored(project, copied)  # by DVC's own commit


def test_two_evaluations_of_one_row(project: Repository) -> None:
    """A row whose parts were made one after the other is restored with all of them."""
    project.set({"rate": 2})
    project.dvc("repro", "-q", "train")
    project.dvc("repro", "-q")
    run = last(project)
    assert run.data.tags["tree.train"] != run.data.tags["tree.a"]
    folder = restored(project, run)
    assert (folder.path / "a.json").exists()


def test_worktree_and_folders(tmp_path: Path) -> None:
    """A git worktree, a project below git's root and a nested project."""
    project = repository(tmp_path / "project", {}, files={"inner/raw.txt": "1\n"})
    inner = {"stages": recorded({"train": train("raw.txt")})}
    project.run("sh", "-c", "cd inner && dvc init -q --subdir")
    project.write({"inner/dvc.yaml": json.dumps(inner), "inner/params.yaml": "rate: 1\n"})
    project.commit("A nested project")
    project.git("worktree", "add", "-q", "../tree")
    project.run("sh", "-c", "cd inner && dvc repro -q")
    nested = last(project)
    said = restore(project, nested)
    assert (said.status, said.error) == (0, "")
    folder = project.path / said.out.splitlines()[-1].partition(":")[0]
    assert (folder / "inner/model.txt").exists()
    tree = Repository(tmp_path / "tree")
    tree.write({"inner/params.yaml": "rate: 2\n"})
    tree.run("sh", "-c", "cd inner && dvc repro -q")
    assert restore(project, last(project)).status == 0


def test_moved_and_copied(project: Repository) -> None:
    """A repository that was moved or copied restores its rows, and what it has restored."""
    run = last(project)
    restored(project, run)
    copied = Repository(project.path.with_name("copied"))
    shutil.copytree(project.path, copied.path, symlinks=True)
    project.path.rename(project.path.with_name("moved"))
    for each in (Repository(project.path.with_name("moved")), copied):
        said = restore(each, run)
        assert (said.status, said.error) == (0, ""), said
        assert "already exists" in said.out
        shutil.rmtree(each.path / "restored")
        assert restore(each, run).status == 0
        assert str(each.path) in Clone(each.path).git("worktree", "list").splitlines()[-1]


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


@pytest.mark.parametrize("shared", ["commit", "experiment", "ref"])
def test_colleague(project: Repository, shared: str) -> None:
    """A colleague has the git remote, and DVC's remote only for large outputs."""
    project.set({"rate": 2})
    if shared == "experiment":
        project.dvc("exp", "run", "-q", "-n", "mine")
    else:
        project.dvc("repro", "-q")
    run = last(project)
    if shared == "commit":
        project.commit("My result")
        project.dvc("push", "-q")
    project.git("push", "-q", "origin", "main")
    if shared == "experiment":
        project.dvc("exp", "push", "-q", "origin", "mine")
    elif shared == "ref":
        project.git("push", "-q", "origin", f"refs/rows/{run.data.tags['kept.a']}")
    colleague = clone_of(project, *(["--depth", "1"] if shared == "ref" else []))
    if shared == "experiment":
        colleague.dvc("exp", "pull", "-q", "origin", "mine")
    restored(colleague, run)


def test_without_caches(project: Repository) -> None:
    """After `git gc --prune=now` and `dvc gc -w`, and without a cache, small outputs are there."""
    project.dvc("exp", "run", "-q", "-S", "rate=2")
    run = last(project)
    project.git("checkout", "-q", ".")
    project.dvc("checkout", "-q")
    project.dvc("exp", "remove", "-q", "-A")
    project.dvc("gc", "-q", "-f", "-w")
    project.git("reflog", "expire", "--expire=now", "--all")
    project.git("gc", "-q", "--prune=now")
    restored(project, run)
    shutil.rmtree(project.path / "restored")
    shutil.rmtree(project.path / ".dvc/cache")
    restored(project, run)


def test_data_that_is_gone(tmp_path: Path) -> None:
    """Where nobody has the data any more, one line says which, where it looked and what to do."""
    stage: dict[str, Any] = {"cmd": "head -c 2000000 /dev/zero > big; echo '{\"n\": 1}' > n.json"}
    stage |= {"outs": ["big"], "metrics": [{"n.json": {"cache": False}}]}
    project = repository(tmp_path / "project", recorded({"one": stage}))
    project.dvc("repro", "-q")
    run = last(project)
    shutil.rmtree(project.path / ".dvc/cache")
    said = restore(project, run)
    assert said.status == 1
    (line,) = said.error.splitlines()
    assert f"big (md5 {run.data.tags['md5.big']}) is missing: it is not in DVC's cache" in line
    assert "there is no default DVC remote; pull it where it still is" in line


def test_corrupted_cache(project: Repository) -> None:
    """A damaged file in DVC's cache, which DVC calls up to date, is found and named."""
    run = last(project)
    md5 = run.data.tags["md5.model.txt"]
    cached = project.path / ".dvc/cache/files/md5" / md5[:2] / md5[2:]
    cached.chmod(0o644)
    cached.write_text("damaged\n")
    cached.chmod(0o444)
    said = restore(project, run)
    assert said.status == 1
    assert ": model.txt has the md5 " in said.error
    assert f"dvc.lock has {md5}; delete {cached} and restore again" in said.error
    cached.unlink()
    assert restore(project, run).status == 0


def test_a_row_says_something_else(project: Repository) -> None:
    """A row whose params or metrics were edited is restored as git has it, and that is said."""
    run = last(project)
    project.client.log_metric(run.info.run_id, "a/score", 99, step=0)
    said = restore(project, run)
    assert said.status == 1
    assert "metric 'a/score' is 1.0, the row says 99.0" in said.error


HOSTILE = [
    {"kept.a": "HEAD", "tree.a": "HEAD^{tree}"},
    {"kept.a": "--upload-pack=touch hacked", "tree.a": "0" * 40},
    {"kept.a": "../../etc/passwd", "tree.a": "a" * 40},
    {"kept.a": "f" * 40, "tree.a": "e" * 40},
    {"kept.train": "$(touch hacked)", "tree.train": "\x1b[31m"},
    {"folder": "../../outside", "mlflow.runName": "../../../outside"},
    {"mlflow.runName": "-rf", "md5.model.txt": "../../x"},
    {"lock.a": "1" * 32},
]


@pytest.mark.parametrize("tags", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_row(project: Repository, tags: dict[str, str]) -> None:
    """A row can name nothing but a tree that this clone or its remote has under a ref."""
    run = last(project)
    for key in ("tree.a", "kept.a", "tree.train", "kept.train"):
        if any(k.startswith(("tree", "kept")) for k in tags):
            project.client.set_tag(run.info.run_id, key, tags.get(key, "x"))
    for key, value in tags.items():
        project.client.set_tag(run.info.run_id, key, value)
    before, around = contents(project.path), {*project.path.parent.iterdir()}
    said = restore(project, run)
    assert contents(project.path) == before
    assert {*project.path.parent.iterdir()} == around
    assert "\x1b" not in said.out + said.error
    if said.status:
        assert len(said.error.splitlines()) == 1
    else:
        (folder,) = (p for p in (project.path / "restored").iterdir() if p.is_dir())
        assert (folder / "model.txt").read_bytes() == (project.path / "model.txt").read_bytes()


def test_commit_that_only_a_reflog_has(project: Repository) -> None:
    """A tree that no branch, tag, experiment or row of this clone names is not checked out."""
    project.write({"secret.txt": "s"})
    project.git("add", "secret.txt")
    project.git("commit", "-q", "-m", "Secret")
    tree = project.git("rev-parse", "HEAD^{tree}")
    commit = project.git("rev-parse", "HEAD")
    project.git("reset", "-q", "--hard", "HEAD~1")
    run = last(project)
    for stage in ("a", "train"):
        project.client.set_tag(run.info.run_id, f"tree.{stage}", tree)
        project.client.set_tag(run.info.run_id, f"kept.{stage}", commit)
    said = restore(project, run)
    assert said.status == 1
    assert "is neither in this clone nor in refs/rows of its git remote" in said.error


def test_old_row(project: Repository) -> None:
    """A row that an older version has made gets one line."""
    client = project.client
    run = client.create_run(last(project).info.experiment_id)
    said = restore(project, run.info.run_id)
    assert "has no result to restore; it is RUNNING" in said.error
    client.set_terminated(run.info.run_id)
    said = restore(project, run.info.run_id)
    assert (said.status, said.error) == (
        1,
        f"dvc-mlflow: {run.info.run_id}: this row names no git tree; it was made by an older "
        "version, or outside git\n",
    )


def test_what_cannot_be_kept(tmp_path: Path) -> None:
    """A large untracked file and a nested repository below a dep are named, also in the row."""
    stages = recorded({"train": {**train("raw.txt"), "deps": ["raw.txt", "lib"]}})
    project = repository(tmp_path / "project", stages, files={"lib/code.py": ""})
    project.write({"lib/large.bin": "x" * 1_500_000})
    project.run("git", "init", "-q", "lib/other")
    project.write({"lib/other/file": "1"})
    done = project.dvc("repro")
    lacks = last(project).data.tags["tree.lacks"]
    for line in ("lib/large.bin: it is larger than 1,000,000 bytes", "lib/other/: it is a git"):
        assert line in done.stderr
        assert line in lacks


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
    project.dvc("repro", "-q")
    assert (project.git("diff", "--cached"), project.git("branch", "-v")) == before
    assert "refs/rows/" in project.git("for-each-ref")
    assert restore(project, last(project)).status == 0
    hooked = project.path / "hooked"
    assert not hooked.exists() or "reference-transaction" not in hooked.read_text()


def test_forget(project: Repository) -> None:
    """`forget` deletes a row and the refs that only it needs; another row keeps its own."""
    first = last(project)
    project.set({"a": 2})
    project.dvc("repro", "-q")
    second = last(project)
    shared = {v for k, v in first.data.tags.items() if k.startswith("kept.")}
    own = {v for k, v in second.data.tags.items() if k.startswith("kept.")} - shared
    said = restore(project, second, "forget")
    assert said.status == 0
    assert [run.info.run_id for run in project.rows()] == [first.info.run_id]
    refs = project.git("for-each-ref", "--format=%(refname)", "refs/rows")
    assert all(f"refs/rows/{commit}" not in refs for commit in own)
    restored(project, first)


def test_pull_in_a_restored_folder(project: Repository) -> None:
    """Plain `dvc pull` works in a restored folder, with remotes that only this clone knows."""
    project.dvc("remote", "add", "-q", "--local", "-d", "own", str(project.path.parent / "own"))
    project.dvc("push", "-q")
    folder = restored(project, last(project))
    (folder.path / "model.txt").unlink()
    shutil.rmtree(project.path / ".dvc/cache")
    folder.dvc("pull", "-q")
    assert (folder.path / "model.txt").exists()
