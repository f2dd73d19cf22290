"""A row's name begins with its result's digits, says what differs, and is the same however made."""

from pathlib import Path
from typing import Any

import pytest
from dvc.repo.experiments.utils import gen_random_name

from dvc_mlflow.project.experiment_names import is_generated
from support.locked import Table, evaluated, locked, read, row, trained
from support.pipelines import PARAMS, TWO_EVALUATIONS, evaluate, makes, train

pytestmark = [
    pytest.mark.filterwarnings("ignore"),  # warnings from MLflow
]

ONE = {**trained(), **evaluated()}


def test_what_differs(tmp_path: Path) -> None:
    """It says which params differ from those in the dvc.lock of the parent commit.

    Else it says the commit's subject; or after which commit the result was made, until somebody has
    committed it.
    """
    project = locked(tmp_path / "project", TWO_EVALUATIONS, {**PARAMS, "long": [1]}, evaluated())
    project.commit("The first")
    now: dict[str, Any] = {**PARAMS}
    changes: list[tuple[dict[str, int], dict[str, str], str]] = [
        ({"rate": 2, "b": 3}, {}, "rate=2 b=3"),
        ({"rate": 7, "a": 7, "b": 7}, {}, "rate=7 a=7 b=7"),
        ({}, {"raw.txt": "2\n", "model.txt": "2\n"}, ""),
    ]
    assert row(project, rev="HEAD").words == "The first"
    for params, files, expected in changes:
        now |= params
        project.again(evaluated(**now) | files, params)
        before, after = row(project), f"after {project.git('rev-parse', 'HEAD')[:7]}"
        assert before.words == (expected or after)
        project.commit("The next")
        found = row(project, rev="HEAD")
        assert found.words == (expected or "The next")
        assert found.name.split(" ", 1) == [before.name[:7], found.words]


SUBJECTS = {
    "Train on all data": "Train on all data",
    f"Train {'on all data ' * 5}": "Train on all data on all data on all data on al…",
    "dvc: commit experiment 1a2b3c": "raw.txt",
}


@pytest.mark.parametrize(("subject", "expected"), SUBJECTS.items())
def test_subjects(tmp_path: Path, subject: str, expected: str) -> None:
    """A subject has 48 letters at most; DVC's own is none, but there are the inputs that differ."""
    project = locked(tmp_path / "project", {"train": train("raw.txt")}, files=trained())
    project.commit("Something")
    project.again({"raw.txt": "2\n", "model.txt": "2\n"})
    project.commit(subject)
    assert row(project, rev="HEAD").words == expected


@pytest.mark.pipeline
def test_alike(tmp_path: Path) -> None:
    """What says the same of several rows is followed by the inputs that differ, if any do."""
    project = locked(tmp_path / "project", {"train": train("raw.txt")}, files=trained())
    project.add_store()
    project.commit("Update")
    for n in (2, 3):
        project.again({"raw.txt": f"{n}\n", "model.txt": f"{n}\n"})
        project.commit("Update")
    for n in (4, 5):
        project.again({"raw.txt": f"{n}\n", "model.txt": f"{n}\n"})
        project.record()
    project.record("--all")
    after = f"after {project.git('rev-parse', 'HEAD')[:7]}"
    found = sorted(run.info.run_name[8:] for run in project.rows())
    assert found == ["Update", *["Update raw.txt"] * 2, after, f"{after} raw.txt"]


def test_places(tmp_path: Path) -> None:
    """If a commit has several rows, each says its item or its stage."""
    of = {f"{name}.txt": name for name in ("x", "y", "z")}
    stages = {
        "a": {"foreach": ["x", "y"], "do": makes({"${item}.txt": ""}, outs=["${item}.txt"])},
        "b": makes({"z.txt": ""}, outs=["z.txt"]),
    }
    project = locked(tmp_path / "project", stages, files=of)
    project.commit("Stages")
    assert {each.words for each in read(project, rev="HEAD").rows} == {
        "x Stages",
        "y Stages",
        "b Stages",
    }


def test_experiments_of_dvc() -> None:
    """A name that DVC has made up is recognized, and none that a person would give."""
    assert all(is_generated(gen_random_name()) for _ in range(2000))
    for name in ("", "small-lstm", "quick-test", "exp-tuned", "exp-1a2b3", "mine", "stoic-deva-2"):
        assert not is_generated(name)


def test_many_params(tmp_path: Path) -> None:
    """It says as many params as fit in 48 letters, and a long value not to its end."""
    stages = {"train": {**train("raw.txt"), "params": ["rate", "a", "b", "c", "d"]}}
    params = {"rate": 1, "a": 1, "b": 1, "c": 1, "d": 1}
    project = locked(tmp_path / "project", stages, params, trained())
    project.commit()
    project.again({}, {"a": "x" * 80 + "\\n", "b": [1] * 9, "c": "y" * 80, "d": 2})
    assert row(project).words == f"a={'x' * 29}… …"
    project.again({}, {"a": 1, "c": 1})
    assert row(project).words == "b=[1, 1, 1, 1, 1, 1, 1, 1, 1] d=2"


def test_digits(tmp_path: Path) -> None:
    """They are those of the last result; of two last ones, those of both."""
    stages = {"train": train("raw.txt"), "a": evaluate("a")}
    found = row(locked(tmp_path / "one", stages, files=ONE))
    assert found.name.split()[0] == found.digests["a"][:7]
    both = locked(tmp_path / "two", {**stages, "b": evaluate("b")}, files=ONE)
    again = row(both)
    assert again.digests["a"] == found.digests["a"]
    assert again.name.split()[0] not in {digest[:7] for digest in again.digests.values()}


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
    names = [f"{found.digests['a'][:7]} {found.words}" for found in table.rows]
    assert [found.name for found in table.rows] == names
    project.add_store()
    project.record("--all")
    found = {run.info.run_name for run in project.rows()}
    assert {name[:7] for name in found} == {name[:7] for name in names}
