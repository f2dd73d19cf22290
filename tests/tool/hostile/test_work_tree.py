"""The tool reads a work tree in one way: regular files of the repository, and no more of them."""

import ast
import errno
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dvc_mlflow import work_tree
from support.clone import ROOT
from support.following import following, run_dvc, started, statuses
from support.hostile import Place
from support.pipelines import evaluate, finished, repository, train
from support.waiting import wait

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


def test_size(tree: Path) -> None:
    """A file that is larger than it may be is refused before anything of it is read."""
    os.truncate(tree / "file", 6_000_000_000)
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
    "record/passes.py": "the tool's own folder",
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


@pytest.mark.parametrize("line", ["open('x')", "path.read_text()", "fs.cat_file('x')"])
def test_one_way_can_fail(tmp_path: Path, line: str) -> None:
    """A call that reads a file is found wherever it is in a module."""
    sneaky = tmp_path / "sneaky.py"
    sneaky.write_text(f"def f(fs, path):\n    return {line}\n")
    assert [*ways(sneaky)]


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
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["dvc.yaml", "dvc.lock", ".dvcignore", ".dvc/config"])
@pytest.mark.parametrize("change", [as_link, as_pipe, as_endless])
def test_own_files_of_dvc(place: Place, name: str, change: Callable[[Path], None]) -> None:
    """DVC does not open a project of which its own files are something else: a line says so."""
    project = place.project
    (project.path / name).touch()
    change(project.path / name)
    said = place.run("record")
    (line,) = said.error.splitlines()
    assert said.status == 1
    assert f"{name} " in line
    assert line.endswith("so it is not read")


@pytest.mark.pipeline
@pytest.mark.filterwarnings("ignore")
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
    # A link to another file of the same cache is not the output of dvc.lock.
    model = (project.path / "model.txt").resolve()
    (project.path / "a.json").unlink()
    (project.path / "a.json").symlink_to(model)
    project.remove_store()
    project.add_store()
    project.record()
    (row,) = project.rows()
    assert row.data.metrics == {"a/score": 1, "train/loss": 0.25}  # from the cache, by its md5


CURVE = """
import json, os, pathlib, time
os.symlink("../outside/secret.csv", "c.csv")
while not pathlib.Path("go").exists():
    time.sleep(0.05)
os.unlink("c.csv")
pathlib.Path("c.csv").write_text("step,loss\\n1,2\\n")
"""


@pytest.mark.pipeline
@pytest.mark.filterwarnings("ignore")
def test_growing_curve_outside(tmp_path: Path) -> None:
    """A growing curve that is a link to a file outside is not in the live row."""
    stage = {"cmd": "python s.py", "deps": ["s.py"], "plots": [{"c.csv": {"cache": False}}]}
    project = repository(tmp_path / "project", {"one": stage}, files={"s.py": CURVE})
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/secret.csv").write_text("step,account\n1,123456\n2,234567\n")
    with following(project) as follower, started(project, "dvc", "repro"):
        follower.wait_for("one is RUNNING")
        wait((project.path / "c.csv").is_symlink, 60)
        (row,) = project.rows()
        for _ in range(20):  # some looks of the follower
            assert project.client.get_run(row.info.run_id).data.metrics == {}
            wait(lambda: True, 1)
        project.write({"go": ""})
        follower.wait_for("one is FINISHED")
    (row,) = project.rows()
    assert row.data.metrics == {"one/loss": 2}


HOSTILE = {
    "infinite": '{"write": {"/a": {"pid": Infinity}}, "read": {}}',
    "deep": "[" * 900_000,
    "large": json.dumps({"write": {f"/{i}": {"pid": 5_000_000 + i} for i in range(99_000)}}),
    "phantom": '{"write": {"HOME/model.txt": {"pid": 1, "cmd": "x"}}, "read": {}}',
}


@pytest.mark.pipeline
@pytest.mark.rest
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", [*HOSTILE, "pipe", "endless", "exps"])
def test_hostile_rwlock(tmp_path: Path, kind: str) -> None:
    """Whatever a commit has in the place of DVC's temporary files, no row begins for it.

    The result of a stage that runs beside it has its row.
    """
    stage = {**evaluate("a", "raw.txt"), "cmd": f"sleep 1; {evaluate('a')['cmd']}"}
    project = finished(tmp_path / "project", {"a": stage})
    rwlock = project.path / ".dvc/tmp/rwlock"
    rwlock.parent.mkdir(exist_ok=True)
    if kind == "pipe":
        as_pipe(rwlock)
    elif kind == "endless":
        as_endless(rwlock)
    elif kind == "exps":
        shutil.rmtree(rwlock.with_name("exps"), ignore_errors=True)
        rwlock.with_name("exps").write_text("")
    else:
        rwlock.write_text(HOSTILE[kind].replace("HOME", f"{project.path}"))
    with following(project) as follower:
        wait(lambda: statuses(project) == ["FINISHED"], 60)
        assert "is RUNNING" not in "".join(follower.lines)
        rwlock.unlink(missing_ok=True)
        project.set({"a": 2})
        run_dvc(project, "repro")
        wait(lambda: statuses(project) == ["FINISHED", "FINISHED"], 60)
