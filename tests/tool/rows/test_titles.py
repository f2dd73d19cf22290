"""A row's name and description say its result's digits, what differs, and its commit."""

import shlex
from pathlib import Path
from typing import Any

import pytest
from dvc.repo.experiments.utils import gen_random_name

from dvc_mlflow.pipeline.tags import CHANGE, COMMIT, NOTE
from dvc_mlflow.project.experiment_names import is_generated
from support.locked import evaluated, locked, read, row, trained
from support.pipelines import PARAMS, TWO_EVALUATIONS, Repository, evaluate, last, makes, train

pytestmark = pytest.mark.filterwarnings("ignore")  # warnings from MLflow


def test_what_differs(tmp_path: Path) -> None:
    """It says which params differ from those in the dvc.lock of the parent commit.

    Else it says the commit's subject, in 48 letters at most, but for one of DVC's own; or after
    which commit the result was made, until somebody has committed it.
    """
    project = locked(tmp_path / "project", TWO_EVALUATIONS, {**PARAMS, "long": [1]}, evaluated())
    project.commit(f"Train {'on all data ' * 5}")
    now: dict[str, Any] = {**PARAMS}
    changes: list[tuple[dict[str, int], dict[str, str], str]] = [
        ({"rate": 2, "b": 3}, {}, "rate=2 b=3"),
        ({"rate": 7, "a": 7, "b": 7}, {}, "rate=7 a=7 b=7"),
        ({}, {"raw.txt": "2\n", "model.txt": "2\n"}, ""),
    ]
    assert row(project, rev="HEAD").words == "Train on all data on all data on all data on al…"
    for params, files, expected in changes:
        now |= params
        project.again(evaluated(**now) | files, params)
        before, after = row(project), f"after {project.git('rev-parse', 'HEAD')[:7]}"
        assert before.words == (expected or after)
        project.commit("The next")
        found = row(project, rev="HEAD")
        assert found.words == (expected or "The next")
        assert found.name.split(" ", 1) == [before.name[:7], found.words]
    project.git("commit", "-q", "--amend", "-m", "dvc: commit experiment 1a2b3c")
    assert row(project, rev="HEAD").words == "raw.txt"


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
    names = [run.info.run_name for run in project.rows()]
    assert len({name[:7] for name in names}) == len(names)
    found = sorted(name[8:] for name in names)
    assert found == ["Update", *["Update raw.txt"] * 2, after, f"{after} raw.txt"]


@pytest.mark.pipeline
def test_told_apart(tmp_path: Path) -> None:
    """Rows whose names are alike but for the digits say which of their params differ.

    Where these are the same, they say their commits' subjects. The newest row can come first, and
    `record` prints the names as the table has them.
    """
    stages = {"train": {**train("raw.txt"), "params": ["rate", "b"]}}
    project = locked(tmp_path / "project", stages, {"rate": 1, "b": 1}, trained())
    project.add_store()
    for subject, params in {
        "One": {"rate": 1, "b": 1},
        "Two": {"rate": 2},
        "Three": {"rate": 1, "b": 3},
        "Four": {"rate": 2},
        "Five": {"rate": 3},
        "Six": {"rate": 2},
    }.items():
        project.again(trained(subject), params)
        project.commit(subject)
        assert project.record().out.split("'")[1] == last(project).info.run_name
    twos = ["rate=2 | b=1", "rate=2 | b=3 Four", "rate=2 | b=3 Six"]
    expected = {"One", "rate=1 b=3", "rate=3", *twos}
    assert {run.info.run_name[8:] for run in project.rows()} == expected
    project.remove_store()
    project.record("--all")
    assert {run.info.run_name[8:] for run in project.rows()} == expected


def test_places(tmp_path: Path) -> None:
    """If a commit has several rows, each says its item or its stage."""
    of = {f"{name}.txt": name for name in ("x", "y", "z")}
    stages = {
        "a": {"foreach": ["x", "y"], "do": makes({"${item}.txt": ""}, outs=["${item}.txt"])},
        "b": makes({"z.txt": ""}, outs=["z.txt"]),
    }
    project = locked(tmp_path / "project", stages, files=of)
    project.commit("Stages")
    found = {each.words for each in read(project, rev="HEAD").rows}
    assert found == {"x Stages", "y Stages", "b Stages"}


def test_experiments_of_dvc() -> None:
    """A name that DVC has made up is recognized, and none that a person would give."""
    assert all(is_generated(gen_random_name()) for _ in range(2000))
    assert is_generated("exp-1a2b3")  # DVC 2's
    for name in ("", "small-lstm", "quick-test", "exp-tuned", "exp-1a2b", "mine", "stoic-deva-2"):
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
    found = row(locked(tmp_path / "one", stages, files=evaluated()))
    assert found.name.split()[0] == found.digests["a"][:7]
    again = row(locked(tmp_path / "two", {**stages, "b": evaluate("b")}, files=evaluated()))
    assert again.digests["a"] == found.digests["a"]
    assert again.name.split()[0] not in {digest[:7] for digest in again.digests.values()}


def short(project: Repository, commit: str = "HEAD") -> str:
    """Return the first digits of a commit."""
    return project.git("rev-parse", commit)[:7]


@pytest.mark.pipeline
def test_committed_later(tmp_path: Path) -> None:
    """An uncommitted result says after which commit it was made; `record` lets it follow.

    Its description says the commit, its subject and author, the commands, and how to restore it.
    """
    project = locked(tmp_path / "project", {"train": train("raw.txt")}, files=trained())
    result = project.lock
    (project.path / "dvc.lock").unlink()
    project.commit("My pipeline")
    project.write({"dvc.lock": result})
    project.add_store()
    project.record()
    (row,) = project.rows()
    assert row.data.tags[CHANGE] == f"after {short(project)} My pipeline"
    start = f"Not committed, made after **{short(project)}** My pipeline, by "
    assert row.data.tags[NOTE].startswith(start)
    project.client.set_tag(row.info.run_id, NOTE, f"{row.data.tags[NOTE]}\n\nMy own words.")
    before = short(project)
    project.commit("Raise *the* rate to `2`")
    assert project.record().out.startswith("nothing to do: MLflow has this result")
    (now,) = project.rows()
    tags, commit = now.data.tags, project.git("rev-parse", "HEAD")
    assert tags[CHANGE] == f"{commit[:7]} Raise *the* rate to `2`"
    assert tags[COMMIT] == commit
    assert row.info.run_name[8:] == f"after {before}"
    name = f"{row.info.run_name[:7]} Raise *the* rate to `2`"
    assert now.info.run_name == name
    lead, commands, way, own = tags[NOTE].split("\n\n")
    assert lead == f"**{commit[:7]}** `` Raise *the* rate to `2` ``, by Tester"
    assert commands == f"- `train`: `{train('raw.txt')['cmd']}`"
    assert own == "My own words."
    program, *words = shlex.split(way.split("`")[1])
    assert (program, project.tool(*words).status) == ("dvc-mlflow", 0)
    (folder,) = (project.path / "restored").glob(f"{name[:7]}-Raise-*")
    assert (folder / "model.txt").exists()
