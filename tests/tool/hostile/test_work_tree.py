"""The tool reads a work tree in one way: regular files of the repository, and no more of them."""

import ast
import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from dvc_mlflow import work_tree
from dvc_mlflow.follow.project_homes import ProjectHome
from dvc_mlflow.follow.stage_runs import Looker
from support.clone import ROOT
from support.following import following, started, wait_for_rows, wait_for_store
from support.hostile import plain
from support.pipelines import Repository, evaluate, repository, train

TOOL = ROOT / "dvc_mlflow"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A folder with a file of each kind, beside a folder outside."""
    root = tmp_path / "root"
    for folder in ("sub", ".git", ".dvc/tmp", "../outside", "../cache/ab"):
        (root / folder).mkdir(parents=True)
    for name in ("file", "sub/file", ".git/config", ".dvc/tmp/rwlock", "../outside/file"):
        (root / name).write_text("text")
    (tmp_path / "cache/ab/cd").write_text("text")
    links = {
        "up": "../outside/file",
        "folder": "../outside",
        "in": "sub/file",
        "git": ".git/config",
    }
    links |= {"cached": "../cache/ab/cd", "other": "../cache/ab/ef", "nowhere": "none"}
    for name, target in links.items():
        (root / name).symlink_to(target)
    os.mkfifo(root / "pipe")
    return root


READ = {"file", "sub/file", "in", "cached"}
REFUSED = {
    "leads out": {"up", "folder/file", "../outside/file", "git", ".git/config", ".dvc/tmp/rwlock"},
    "is not a regular file": {"sub", "pipe"},
}


def test_read(tree: Path) -> None:
    """What is no regular file below the root is refused; a link to DVC's own object is not."""
    cached = f"{tree.parent / 'cache/ab/cd'}"
    for name in READ:
        assert work_tree.read(tree / name, tree, cached=cached) == b"text"
    for why, names in REFUSED.items():
        for name in names:
            with pytest.raises(work_tree.RefusedError, match=f"{name} {why}"):
                work_tree.read(tree / name, tree, cached=cached)
    with pytest.raises(work_tree.RefusedError):
        work_tree.read(tree / "cached", tree)
    with pytest.raises(FileNotFoundError):
        work_tree.read(tree / "nowhere", tree)
    assert work_tree.read(tree / ".dvc/tmp/rwlock", tree, of_dvc=True) == b"text"
    assert work_tree.read(tree / "file", tree, start=1, size=2) == b"ex"
    # One that is too large is refused before anything of it is read.
    as_endless(tree / "file")
    with pytest.raises(work_tree.RefusedError, match="has more than 64 MB") as refused:
        work_tree.read(tree / "file", tree)
    assert refused.value.errno == errno.EFBIG
    with pytest.raises(work_tree.RefusedError, match="has more than 1 MB"):
        work_tree.read(tree / "file", tree, most=1_000_000)


ELSEWHERE = {
    "commands/ui.py": "the tool's own folder",
    "follow/follower_lock.py": "the tool's own folder",
    "follow/stage_runs.py": "/proc",
    "processes.py": "/proc, and the tool's own folder",
    "project/experiment_names.py": "DVC's own module",
    "project/files.py": "DVC's cache",
    "project/project.py": "a dvc.yaml that was looked at before DVC opened the project",
    "project/restored_files.py": "a worktree that the tool has made",
    "rows/kept_trees.py": "git's index",
    "store/database.py": "the database",
    "store/git_exclude.py": "git's own file",
    "store/models.py": "what MLflow has packed",
    "store/ui_guard.py": "/proc",
    "store/ui_port.py": "the tool's own folder",
    "sweep/node.py": "a folder that the tool has made",
    "sweep/trial.py": "the null device",
    "work_tree.py": "the work tree",
}
"""What the modules read that open a file."""
WAYS = {"open", "read_text", "read_bytes", "cat_file", "fdopen", "load_file", "copyfile", "copy2"}


def ways(path: Path) -> Iterator[str]:
    """Yield the calls in a module that read a file in another way."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call):
            called = node.func
            owner = called.value if isinstance(called, ast.Attribute) else None
            name = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
            is_here = isinstance(owner, ast.Name) and owner.id in ("work_tree", "Store", "Blobs")
            if name in WAYS and not is_here:
                yield f"{path.name}:{node.lineno}: {name}"


def test_one_way() -> None:
    """No module reads a file of the work tree by itself."""
    found = {f"{path.relative_to(TOOL)}": [*ways(path)] for path in sorted(TOOL.rglob("*.py"))}
    assert {name: calls for name, calls in found.items() if calls}.keys() == ELSEWHERE.keys()


def test_one_way_can_fail(tmp_path: Path) -> None:
    """A call that reads a file is found wherever it is in a module."""
    sneaky = tmp_path / "sneaky.py"
    for line in ("open('x')", "path.read_text()", "fs.cat_file('x')"):
        sneaky.write_text(f"def f(fs, path):\n    return {line}\n")
        assert [*ways(sneaky)], line


def as_link(file: Path) -> None:
    """Let a file be a link to the same content outside."""
    outside = Path(shutil.move(file, file.parents[1 + (".dvc" in file.parts)] / "elsewhere"))
    file.symlink_to(outside)


def as_pipe(file: Path) -> None:
    """Let a file be a pipe, into which nobody writes."""
    file.unlink(missing_ok=True)
    os.mkfifo(file)


def as_endless(file: Path) -> None:
    """Let a file be so large that no memory holds it."""
    file.touch()
    os.truncate(file, 6_000_000_000)


@pytest.mark.pipeline
def test_own_files_of_dvc(made: Repository, tmp_path: Path) -> None:
    """DVC does not open a project of which its own files are something else: a line says so."""
    for name in ("dvc.yaml", "dvc.lock", ".dvcignore", ".dvc/config"):
        for change in (as_link, as_pipe):
            project = made.copy_whole(tmp_path / f"{change.__name__}-{name[-6:]}" / "project")
            (project.path / name).touch()
            change(project.path / name)
            said = plain(project.record())
            (line,) = said.error.splitlines()
            assert said.status == 1
            assert f"{name} " in line
            assert line.endswith("so it is not read")


HOSTILE = {
    "infinite": '{"write": {"/a": {"pid": Infinity}}, "read": {}}',
    "deep": "[" * 900_000,
    "phantom": '{"write": {"HOME/model.txt": {"pid": 1, "cmd": "x"}}, "read": {}}',
}


def test_temporary_files_of_dvc(tmp_path: Path) -> None:
    """Whatever a commit has in the place of DVC's temporary files, no stage is seen to run."""
    rwlock, looker = tmp_path / ".dvc/tmp/rwlock", Looker([ProjectHome(f"{tmp_path}", ".")])
    rwlock.parent.mkdir(parents=True)
    rwlock.with_name("exps").write_text("")
    for text in HOSTILE.values():
        rwlock.write_text(text.replace("HOME", f"{tmp_path}"))
        looker.look()
        assert looker.runs == []
    for change in (as_endless, as_pipe):
        change(rwlock)
        with pytest.raises(work_tree.RefusedError, match="so it is not read"):
            looker.look()
        assert looker.runs == []


@pytest.mark.pipeline
def test_linked_cache(tmp_path: Path) -> None:
    """Metrics and curves that are links into a cache which a team shares are in the row."""
    stages = {"train": train("raw.txt"), "a": evaluate("a", cache=True)}
    stages["train"]["plots"] = [{"curve.csv": {"x": "step"}}]
    project = repository(tmp_path / "project", stages)
    project.dvc("config", "cache.type", "symlink")
    project.dvc("config", "cache.dir", f"{tmp_path / 'cache'}")
    project.dvc("repro", "-q")
    assert {(project.path / name).is_symlink() for name in ("a.json", "curve.csv")} == {True}
    said = project.record()
    assert said.error == ""
    (row,) = project.rows()
    assert row.data.metrics == {"a/score": 1, "train/loss": 0.25}


ODD_CURVES = """
import os, pathlib, time
whats = {whats}
for name in whats:
    pathlib.Path(f"{name}.csv").write_text("step,loss\\n1,0.5\\n")
while not pathlib.Path("go").exists():
    time.sleep(0.05)
for name, what in whats.items():
    curve = pathlib.Path(f"{name}.csv")
    curve.unlink()
    exec(what)
with open("good.csv", "w", buffering=1) as good:
    good.write("step,loss\\n")
    for step in range(1, 10_000):
        good.write(f"{step},{step}\\n")
        if pathlib.Path("end").exists():
            break
        time.sleep(0.05)
for name in whats:
    curve = pathlib.Path(f"{name}.csv")
    curve.unlink()
    curve.write_text("step,loss\\n1,0.25\\n2,0.125\\n")
"""
WHATS = {
    "fifo": "os.mkfifo(curve)",
    "device": "os.symlink('/dev/zero', curve)",
    "line": "curve.write_text('step,loss\\n' + 'x' * 50_000_000)",
    "outside": "os.symlink('../secret.csv', curve)",
}


@pytest.mark.pipeline
def test_odd_files(tmp_path: Path) -> None:
    """A follower goes on whatever is in the place of DVC's file, or of a growing curve.

    A FIFO, a device, a line without an end, a file outside: the row has nothing of it while the
    stage runs, and then what the curve is at its end.
    """
    script = ODD_CURVES.replace("{whats}", f"{WHATS}")
    plots = [{f"{name}.csv": {"cache": False, "x": "step"}} for name in ("good", *WHATS)]
    stage = {"cmd": "python script.py", "deps": ["script.py"], "plots": plots}
    project = repository(tmp_path / "project", {"one": stage}, files={"script.py": script})
    (tmp_path / "secret.csv").write_text("step,loss\n1,0.5\n2,123456\n")  # as long, and more
    rwlock, good = project.path / ".dvc/tmp/rwlock", "one/good/loss"
    rwlock.parent.mkdir(exist_ok=True)
    as_pipe(rwlock)

    def shown() -> dict[str, float]:
        (row,) = project.rows()
        return dict(row.data.metrics)

    with following(project) as follower:
        follower.wait_for("rwlock is not a regular file")
        rwlock.unlink()
        with started(project, "dvc", "repro") as dvc:
            wait_for_rows(project, "RUNNING")
            keys = {f"one/{name}/loss" for name in WHATS}
            wait_for_store(project, lambda: keys <= shown().keys())
            project.write({"go": ""})
            seen = wait_for_store(project, lambda: shown().get(good))
            wait_for_store(project, lambda: shown()[good] > seen)  # the odd ones were read, too
            assert {key: shown()[key] for key in keys} == dict.fromkeys(keys, 0.5)
            project.write({"end": ""})
            assert dvc.wait(180) == 0
        assert project.record().status == 0
    (row,) = project.rows()
    for key in keys:
        history = project.client.get_metric_history(row.info.run_id, key)
        assert [(point.step, point.value) for point in history] == [(1, 0.25), (2, 0.125)], key
    assert row.info.status == "FINISHED"
