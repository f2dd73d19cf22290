"""The recorder reads the project once for a `dvc`, and then only what has changed."""

from pathlib import Path
from typing import Any

import pytest

from support.live_runs import recorded
from support.pipelines import Stages, evaluate, makes, repository

HOOK = """
import os, sys

def write(event, given):
    if event == "sqlite3.connect" and "recorder" in " ".join(sys.orig_argv):
        if "/cache.db" in str(given[0]):  # of DVC's state
            with open(os.environ["OPENED"], "a") as file:
                file.write(f"{given[0]}\\n")

sys.addaudithook(write)
"""


def test_shared_by_a_foreach(tmp_path: Path) -> None:
    """A stage above a foreach is recorded once, though all items' rows have its result."""
    do = {
        "cmd": "echo '{\"n\": 1}' > ${item}.json",
        "deps": ["f.json"],
        "metrics": [{"${item}.json": {"cache": False}}],
    }
    fit = {"foreach": ["x", "y"], "do": do}
    given = {"features": makes({"f.json": '{"n": 1}'}, deps=["raw.txt"], metrics=["f.json"])}
    project = repository(tmp_path / "project", {**given, "fit": fit})
    done = project.run("dvc-mlflow", "dvc", "repro", "features")
    assert len(project.rows()) == 1
    assert done.stderr.count("dvc-mlflow: row ") == 1
    assert done.stderr.count("dvc-mlflow: all rows: ") == 1


def stages(*names: str) -> Stages:
    """Return recorded stages that depend on nothing but their params."""
    return recorded({name: evaluate(name, "raw.txt") for name in names})


def test_opened_once(tmp_path: Path) -> None:
    """However many stages a `dvc` runs, DVC's databases are opened for one project."""
    (tmp_path / "hook").mkdir()
    (tmp_path / "hook" / "sitecustomize.py").write_text(HOOK)
    opened = []
    for number, (names, in_front) in enumerate((("a", False), ("abcd", False), ("abcd", True))):
        given = {n: evaluate(n, "raw.txt") for n in names} if in_front else stages(*names)
        project = repository(tmp_path / f"{number}", given, dict.fromkeys(names, 1))
        log = tmp_path / f"{number}.log"
        command = ["dvc-mlflow", "dvc"] if in_front else ["dvc"]
        more: Any = {"PYTHONPATH": f"{tmp_path / 'hook'}", "OPENED": f"{log}"}
        project.run(*command, "repro", "-q", **more)
        assert len(project.rows()) == len(names)
        opened.append(len(log.read_text().splitlines()))
    assert opened[0] == opened[1] == opened[2] > 0


def test_many_are_found(tmp_path: Path) -> None:
    """Each of many results is found again, also if somebody else has written in between."""
    names = "abcdefghij"
    given = {name: evaluate(name, "raw.txt") for name in names}
    writes = "UPDATE runs SET name = name"
    code = f"import sqlite3; c = sqlite3.connect('mlflow.db'); c.execute('{writes}'); c.commit()"
    given["h"]["cmd"] += f'; python -c "{code}"'
    project = repository(tmp_path / "project", given, dict.fromkeys(names, 1))
    for _ in range(2):
        project.run("dvc-mlflow", "dvc", "repro", "-q", "-f")
    assert len(project.rows()) == len(names)
    project.set(dict.fromkeys(names, 2))
    project.run("dvc-mlflow", "dvc", "repro", "-q")
    assert len(project.rows()) == 2 * len(names)


@pytest.mark.parametrize("layout", ["", "# mine\n"])
def test_rows_are_those_of_record(tmp_path: Path, layout: str) -> None:
    """Rows of many stages, one of which fails, are those of `record`, whatever wrote dvc.lock."""
    names = "abcd"
    given = {**stages(*names), **recorded({"all": evaluate("all", *(f"{n}.json" for n in names))})}
    given["c"] = {**given["c"], "cmd": f"test ! -e fail && {given['c']['cmd']}"}
    project = repository(tmp_path / "live", given, dict.fromkeys([*names, "all"], 1))
    project.dvc("repro", "-q")
    lock = project.path / "dvc.lock"
    lock.write_text(layout + lock.read_text())
    project.set({"a": 2, "c": 2, "d": 2})
    project.write({"fail": ""})
    assert project.dvc("repro", "-q", "--keep-going", check=False).returncode
    (project.path / "fail").unlink()
    project.dvc("repro", "-q")
    after = project.copy(tmp_path / "after")
    after.remove_store()
    after.add_store()
    after.run("dvc-mlflow", "record")
    newest = [row for row in project.table() if row in after.table()]
    assert newest == after.table()


@pytest.mark.parametrize("file", ["dvc.yaml", "params.yaml", "more.yaml"])
def test_definitions_that_change_between_stages(tmp_path: Path, file: str) -> None:
    """What a stage changes in dvc.yaml, or in its variables, holds for the stages after it."""
    prefix = {"dvc.yaml": "old", "params.yaml": "${name}", "more.yaml": "${more}"}[file]
    given = stages("first", "a", "b")  # DVC is imported while the first one runs
    given["a"] |= {"deps": ["first.json"]}
    given["b"] |= {"deps": ["a.json"], "meta": {"mlflow": {"prefix": f"{prefix}/"}}}
    given["a"]["cmd"] = f"sed -i s=ol[d]=new=g {file}; {given['a']['cmd']}"
    params, files = {"first": 1, "a": 1, "b": 1, "name": "old"}, {"more.yaml": "more: old\n"}
    project = repository(tmp_path / "project", given, params, files, vars=["more.yaml"])
    project.dvc("repro", "-q")
    keys = {key for run in project.rows() for key in run.data.metrics}
    assert keys == {"first/score", "a/score", "new/score"}


@pytest.mark.parametrize("comment", ["", "# mine\n", "    # mine\n"])
def test_lock_in_the_tree_is_the_one_that_dvc_writes(tmp_path: Path, comment: str) -> None:
    """A row's tree has dvc.lock, byte for byte, as DVC writes it when the stage has ended."""
    project = repository(tmp_path / "project", stages("a", "b"), {"a": 1, "b": 1})
    for changed in ({}, {"b": 2}, {"a": 2}):
        project.set(changed)
        project.dvc("repro", "-q")
        (tree,) = (
            v for k, v in project.rows()[-1].data.tags.items() if k.startswith("dvc-mlflow.tree.")
        )
        assert project.git("show", f"{tree}:dvc.lock") == project.lock.strip()
        at = project.lock.find("    deps") if comment.startswith(" ") else 0
        (project.path / "dvc.lock").write_text(project.lock[:at] + comment + project.lock[at:])
