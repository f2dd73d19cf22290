"""A row's name says what differs, ends with its result's digits, and is the same however made."""

from pathlib import Path
from typing import Any

import pytest
from dvc.repo.experiments.utils import gen_random_name

from dvc_mlflow.project.experiment_names import is_generated
from support.locked import Table, evaluated, locked, row, trained
from support.pipelines import PARAMS, TWO_EVALUATIONS, evaluate, train

pytestmark = [
    pytest.mark.filterwarnings("ignore"),  # warnings from MLflow
]

ONE = {**trained(), **evaluated()}


def test_what_differs(tmp_path: Path) -> None:
    """It says which params differ from those in the dvc.lock of the parent commit."""
    project = locked(tmp_path / "project", TWO_EVALUATIONS, {**PARAMS, "long": [1]}, evaluated())
    project.commit("The first")
    now: dict[str, Any] = {**PARAMS}
    changes: list[tuple[dict[str, int], str]] = [
        ({}, ""),
        ({"rate": 2, "b": 3}, "rate=2 b=3"),
        ({"rate": 7, "a": 7, "b": 7}, "rate=7 a=7 b=7"),
    ]
    for params, expected in changes:
        now |= params
        project.again(evaluated(**now), params)
        before = row(project)
        assert (before.words, before.name[:-7]) == (expected, f"{expected} ".lstrip())
        project.commit("The next")
        assert row(project, rev="HEAD").name == before.name
        assert row(project).words == ""  # what is committed differs no more from HEAD


def test_experiments_of_dvc() -> None:
    """A name that DVC has made up is recognized, and none that a person would give."""
    assert all(is_generated(gen_random_name()) for _ in range(2000))
    assert is_generated("sweep-0be3c9a71f52")
    for name in ("", "small-lstm", "quick-test", "sweep-small", "mine", "stoic-deva-2"):
        assert not is_generated(name)


def test_three_params(tmp_path: Path) -> None:
    """It says three params at most, a long value not to its end, and keeps the digits."""
    stages = {"train": {**train("raw.txt"), "params": ["rate", "a", "b", "c", "d"]}}
    params = {"rate": 1, "a": 1, "b": 1, "c": 1, "d": 1}
    project = locked(tmp_path / "project", stages, params, trained())
    project.commit()
    project.again({}, {"a": "x" * 80 + "\\n", "b": [1] * 40, "c": "y" * 80, "d": 2})
    found = row(project)
    assert found.name.startswith(f"a={'x' * 29}… b=[1, 1,")
    assert "d=2" not in found.name
    assert found.name.endswith(f" {found.digests['train'][:7]}")
    assert len(found.name) <= 100


def test_digits(tmp_path: Path) -> None:
    """They are those of the last result; of two last ones, those of both."""
    stages = {"train": train("raw.txt"), "a": evaluate("a")}
    found = row(locked(tmp_path / "one", stages, files=ONE))
    assert found.name.split()[-1] == found.digests["a"][:7]
    both = locked(tmp_path / "two", {**stages, "b": evaluate("b")}, files=ONE)
    again = row(both)
    assert again.digests["a"] == found.digests["a"]
    assert again.name.split()[-1] not in {digest[:7] for digest in again.digests.values()}


@pytest.mark.pipeline
def test_no_two_rows_share_a_name(tmp_path: Path) -> None:
    """Corrections of an evaluation alone, which say the same, have other digits."""
    stages = {"train": train("raw.txt"), "a": evaluate("a")}
    stages["a"] = {**stages["a"], "cmd": "cat a.py > a.json", "deps": ["model.txt", "a.py"]}
    files = {**trained(), "a.py": '{"score": 1}', "a.json": '{"score": 1}'}
    project, table = locked(tmp_path / "project", stages, files=files), Table()
    project.commit("The first")
    table.record(project, rev="HEAD")
    for score in (2, 3, 4):
        project.again(dict.fromkeys(["a.py", "a.json"], f'{{"score": {score}}}'))
        table.record(project)
        project.commit("Results")
    first, *others = table.rows
    assert first.name == first.digests["a"][:7]
    assert [found.name for found in others] == [found.digests["a"][:7] for found in others]
    project.add_store()
    project.record("--all")
    assert {run.info.run_name for run in project.rows()} == {
        found.digests["a"][:7] for found in table.rows
    }
