"""Wherever a pipeline is, and whatever runs beside it, each stage has the row that is its own."""

import json
import shutil
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from support.following import (
    SLOW,
    following,
    held_by,
    started,
    wait_for_rows,
    wait_for_store,
)
from support.pipelines import Repository, Stages, last, repository

pytestmark = [
    pytest.mark.pipeline,
    pytest.mark.filterwarnings("ignore"),  # warnings from MLflow
]

SCORE = 'echo "{\\"n\\": %s}" > %s.json'


def scored(value: str, name: str, **more: object) -> dict[str, object]:
    """Return a stage that takes its time for a score in a file."""
    metrics = [{f"{name}.json": {"cache": False}}]
    return {"cmd": f"sleep 1; {SCORE % (value, name)}; sleep 2", "metrics": metrics, **more}


def test_worktree(tmp_path: Path) -> None:
    """A git worktree that is made while the repository is followed is followed, too."""
    waits = {
        **SLOW["prepare"],
        "cmd": f"until test -e go; do sleep 0.1; done; {SLOW['prepare']['cmd']}",
    }
    project = repository(tmp_path / "project", {**SLOW, "prepare": waits})
    tree = Repository(tmp_path / "tree")
    with following(project):
        project.git("worktree", "add", "-q", f"{tree.path}")
        tree.set({"rate": 7})
        with started(tree, "dvc", "repro"):
            wait_for_rows(project, "RUNNING")
            tree.write({"go": ""})
        wait_for_store(project, lambda: last(project).data.params == {"rate": "7", "a": "1"})
        wait_for_rows(project, "FINISHED")
        assert not (tree.path / "mlflow.db").exists()


def test_monorepo(tmp_path: Path) -> None:
    """A project in a folder, and one in a folder of that, have rows in their own experiments."""
    project = repository(tmp_path / "project", {"a": scored("1", "a", deps=["raw.txt"])})
    for number, folder in enumerate(("inner", "inner/most"), 2):
        project.write(
            {f"{folder}/dvc.yaml": json.dumps({"stages": {"a": scored(f"{number}", "a")}})}
        )
        Repository(project.path / folder).dvc("init", "-q", "--subdir")
    project.commit("Three projects")
    with following(project) as follower:
        for number, folder in enumerate((".", "inner", "inner/most")):
            with started(project, "dvc", "repro", folder=folder):
                wait_for_rows(project, *["FINISHED"] * number, "RUNNING")
            follower.wait_for("is FINISHED", number + 1)
        with started(project, "dvc", "exp", "run", "-q", "--temp", "-f", folder="inner"):
            pass
        follower.wait_for("is FINISHED", 4)
        rows = wait_for_rows(project, *["FINISHED"] * 3)
    names = [project.client.get_experiment(row.info.experiment_id).name for row in rows]
    assert {name: row.data.metrics for name, row in zip(names, rows, strict=True)} == {
        "project": {"a/n": 1},
        "project/inner": {"a/n": 2},
        "project/inner/most": {"a/n": 3},
    }


def test_several(tmp_path: Path) -> None:
    """Items of a foreach and a matrix, one in another `wdir`, and several `dvc` at once.

    Each stage has a row of its own. The `dvc` of another repository in a stage has none, nor has a
    daemon that a stage leaves, with its variables, or a `dvc` under it.
    """
    other = repository(tmp_path / "other", {"a": scored("2", "a")})
    daemon = (
        f"setsid {sys.executable} -c 'import time; time.sleep(600)' >/dev/null 2>&1 & echo $! > pid"
    )
    odd = scored("5", "odd")
    root = tmp_path / "project"

    def item(value: str, name: str, **more: object) -> dict[str, object]:
        cmd = f"{held_by(root / f'go-{name}')}; {SCORE % (value, name)}"
        return {**scored(value, name, **more), "cmd": cmd}

    stages: Stages = {
        "each": {"foreach": ["x", "y"], "do": item("1", "${item}", wdir="sub")},
        "grid": {"matrix": {"i": [1, 2]}, **item("${item.i}", "g${item.i}")},
        "odd": {**odd, "cmd": f"(cd {other.path} && dvc repro -q); {daemon}; {odd['cmd']}"},
    }
    project = repository(root, stages, files={"sub/.keep": ""})
    expected = [("each/n", 1), ("each/n", 1), ("grid/n", 1), ("grid/n", 2), ("odd/n", 5)]
    seen = set[str]()

    def are(*wanted: str) -> None:
        rows = wait_for_rows(project, *wanted)
        seen.update(row.info.run_id for row in rows if row.info.status == "RUNNING")

    with following(project) as follower:
        with ExitStack() as together:
            # In turn: a `dvc` gives up when another has held DVC's lock for 3 s.
            for count, items in enumerate((["each@x", "grid@2"], ["each@y"], ["grid@1"]), 1):
                together.enter_context(started(project, "dvc", "repro", *items))
                are(*["RUNNING"] * count)
            follower.wait_for("is RUNNING", 3)
            is_x_first = any(line.startswith("each@x ") for line in follower.lines)  # DVC's choice
            first, second = ("x", "g2") if is_x_first else ("g2", "x")
            for count, name in enumerate((first, "y", "g1", second), 1):
                project.write({f"go-{name}": ""})
                are(*["FINISHED"] * count, *["RUNNING"] * (4 - count))
        with started(project, "dvc", "repro", "odd"):
            are(*["FINISHED"] * 4, "RUNNING")
        wait_for_rows(project, *["FINISHED"] * 5)
        began = [line for line in follower.lines if "RUNNING" in line]
        for words in (["status"], ["repro", "grid@1"], ["commit", "-f"]):
            project.run("dvc", *words, DVC_STAGE="odd", DVC_ROOT=f"{project.path}")
        assert project.record().status == 0
        rows = wait_for_rows(project, *["FINISHED"] * 5)
        assert [line for line in follower.lines if "RUNNING" in line] == began
    project.run("kill", (project.path / "pid").read_text().strip())
    assert {row.info.run_id for row in rows} == seen
    assert sorted(each for row in rows for each in row.data.metrics.items()) == expected
    assert other.rows() == []


def test_compared_items(tmp_path: Path) -> None:
    """Items that a recorded stage compares have live rows, and so has the comparison."""
    root = tmp_path / "project"
    each = scored("1", "${item}")
    both = scored("2", "both", deps=["x.json", "y.json"])
    stages: Stages = {
        "fit": {
            "foreach": ["x", "y"],
            "do": {**each, "cmd": f"{held_by(root / 'go-${item}')}; {each['cmd']}"},
        },
        "compare": {**both, "cmd": f"{held_by(root / 'go-both')}; {both['cmd']}"},
    }
    project = repository(root, stages)
    with following(project), started(project, "dvc", "repro"):
        for count in range(3):
            wait_for_rows(project, *["FINISHED"] * count, "RUNNING")
            if count == 0:
                first = "x" if project.rows()[0].data.tags["dvc.stage"] == "fit@x" else "y"
                names = [first, "y" if first == "x" else "x", "both"]
            project.write({f"go-{names[count]}": ""})
        wait_for_rows(project, *["FINISHED"] * 3)
    assert sorted(key for row in project.rows() for key in row.data.metrics) == [
        "compare/n",
        "fit/n",
        "fit/n",
    ]
    assert project.record().out.startswith("nothing to do")


def test_many_lost_files(tmp_path: Path) -> None:
    """If many rows lack a file, a few lines say so, and how to see the others."""
    project = repository(tmp_path / "project", {"a": scored("1", "a")})
    each = {"cmd": SCORE % ("1", "${item}"), "metrics": ["${item}.json"]}
    stages = {"each": {"foreach": [*"uvwxyz"], "do": each}}
    project.write({"inner/dvc.yaml": json.dumps({"stages": stages})})
    inner = Repository(project.path / "inner")
    inner.dvc("init", "-q", "--subdir")
    inner.dvc("repro", "-q")
    project.commit("Two projects")
    for file in inner.path.glob("?.json"):
        file.unlink()
    shutil.rmtree(inner.path / ".dvc" / "cache" / "files")
    with following(project) as follower:
        follower.wait_for("2 more such lines; `dvc-mlflow record --all` prints them")
        wait_for_rows(project, *["FINISHED"] * 6)
        assert sum("not as in dvc.lock" in line for line in follower.lines) == 4
    said = project.record("--all", folder="inner")
    assert said.error.count("not as in dvc.lock") == 1
    assert all(f"{item}.json" in said.error for item in "uvwxyz")
