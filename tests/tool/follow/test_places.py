"""Wherever a pipeline is, and whatever runs beside it, each stage has the row that is its own."""

import json
from contextlib import ExitStack
from pathlib import Path

import pytest

from support.following import following, held_by, started, wait_for_rows
from support.pipelines import Repository, Stages, evaluate, repository

pytestmark = pytest.mark.pipeline


def scored(value: str, name: str, gate: Path, **more: object) -> dict[str, object]:
    """Return a stage that writes a score into a file when its gate, a file, is there."""
    metrics = [{f"{name}.json": {"cache": False}}]
    cmd = f'{held_by(gate)}; echo "{{\\"n\\": {value}}}" > {name}.json'
    return {"cmd": cmd, "metrics": metrics, **more}


def test_folders_and_worktrees(tmp_path: Path) -> None:
    """A project in a folder, and one in a folder of that, have rows in their own experiments.

    A temporary copy has its row in its project's, and so has a git worktree, even one that is made
    while the repository is followed.
    """
    gate, tree = tmp_path / "go", Repository(tmp_path / "tree")
    project = repository(tmp_path / "project", {"a": scored("1", "a", gate, params=["rate"])})
    for number, folder in enumerate(("inner", "inner/most"), 2):
        stages = {"a": scored(f"{number}", "a", gate)}
        project.write({f"{folder}/dvc.yaml": json.dumps({"stages": stages})})
        Repository(project.path / folder).dvc("init", "-q", "--subdir")
    project.commit("Three projects")
    runs = [
        (project, ".", "repro", 1),
        (project, "inner", "repro", 2),
        (project, "inner/most", "repro", 3),
        (project, "inner", "exp run -q --temp -f", 3),  # the same result
        (tree, ".", "repro", 4),
    ]
    with following(project):
        project.git("worktree", "add", "-q", f"{tree.path}")
        tree.set({"rate": 2})
        before = 0
        for place, folder, words, after in runs:
            with started(place, "dvc", *words.split(), folder=folder):
                wait_for_rows(project, *["FINISHED"] * before, "RUNNING")
                gate.touch()
            wait_for_rows(project, *["FINISHED"] * after)
            gate.unlink()
            before = after
    rows = project.rows()
    names = [project.client.get_experiment(row.info.experiment_id).name for row in rows]
    assert [(name, row.data.metrics) for name, row in zip(names, rows, strict=True)] == [
        ("project", {"a/n": 1}),
        ("project/inner", {"a/n": 2}),
        ("project/inner/most", {"a/n": 3}),
        ("project", {"a/n": 1}),
    ]
    assert not (tree.path / "mlflow.db").exists()


def test_several(tmp_path: Path) -> None:
    """Items of a foreach and a matrix, one in another `wdir`, and several `dvc` at once.

    Each stage has a row of its own. The `dvc` of another repository in a stage has none.
    """
    other = repository(tmp_path / "other", {"a": evaluate("a", "raw.txt")})
    odd = scored("5", "odd", tmp_path / "odd")
    stages: Stages = {
        "each": {
            "foreach": ["x", "y"],
            "do": scored("1", "${item}", tmp_path / "${item}", wdir="sub"),
        },
        "grid": {
            "matrix": {"i": [1, 2]},
            **scored("${item.i}", "g${item.i}", tmp_path / "g${item.i}"),
        },
        "odd": {**odd, "cmd": f"(cd {other.path} && dvc repro -q); {odd['cmd']}"},
    }
    project = repository(tmp_path / "project", stages, files={"sub/.keep": ""})
    names = {"each@x": "x", "each@y": "y", "grid@1": "g1", "odd": "odd"}  # with their gates
    with following(project), ExitStack() as together:
        # In turn: a `dvc` gives up when another has held DVC's lock for 3 s.
        for count, name in enumerate(names, 1):
            together.enter_context(started(project, "dvc", "repro", name))
            wait_for_rows(project, *["RUNNING"] * count)
        begun = project.rows()
        for count, gate in enumerate(names.values(), 1):
            (tmp_path / gate).touch()
            wait_for_rows(project, *["FINISHED"] * count, *["RUNNING"] * (4 - count))
    rows = project.rows()
    assert {row.info.run_id for row in rows} == {row.info.run_id for row in begun}
    expected = [("each/n", 1), ("each/n", 1), ("grid/n", 1), ("odd/n", 5)]
    assert sorted(each for row in rows for each in row.data.metrics.items()) == expected
    assert other.rows() == []
