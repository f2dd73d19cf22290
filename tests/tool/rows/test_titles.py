"""A row's name says what differs, ends with its result's digits, and is the same however made."""

import re
from pathlib import Path

import pytest
from dvc.repo.experiments.utils import gen_random_name

from dvc_mlflow.project import is_generated
from support.following import followed, following, started, wait_for_rows
from support.locked import Locked, Table, evaluated, locked, row, trained
from support.pipelines import PARAMS, TWO_EVALUATIONS, Repository, evaluate, repository, train
from support.waiting import wait

pytestmark = [
    pytest.mark.versions,
    pytest.mark.filterwarnings("ignore"),  # warnings from MLflow
]

STAGES = {
    **TWO_EVALUATIONS,
    "train": {**train(), "deps": ["data.txt", "train.py"]},
    "a": {**evaluate("a"), "deps": ["model.txt", "a.py"]},
}
FILES = {"train.py": "1\n", "a.py": "1\n"}
ONE, TWO = {**trained(), **evaluated()}, evaluated()
BOTH = {"a": evaluate("a"), "b": evaluate("b")}


def names(project: Repository) -> list[str]:
    """Return the names of the rows, oldest first, without their digits."""
    return [re.sub("[0-9a-f]{7}$", "", row.info.run_name or "").strip() for row in project.rows()]


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """A pipeline that was recorded live while its params and its code changed."""
    path = tmp_path_factory.mktemp("lived") / "project"
    made = repository(path, STAGES, {**PARAMS, "long": [1]}, FILES)
    with following(made):
        followed(made, "repro")
        made.commit("The first")
        made.set({"a": 5})
        made.write({"train.py": "2\n"})
        followed(made, "repro")
        made.commit("The next")
        followed(made, "exp", "run", "-q", "-n", "small-lstm", "-S", "rate=9")
        made.git("checkout", "-q", ".")
        followed(made, "exp", "run", "-q", "--temp", "-S", "rate=10")
    return made


@pytest.fixture
def project(tmp_path: Path) -> Locked:
    """The same pipeline, after its first commit."""
    files = {**FILES, **evaluated()}
    made = locked(tmp_path / "project", STAGES, {**PARAMS, "long": [1]}, files)
    made.commit("The first")
    return made


@pytest.mark.parametrize(
    ("params", "files", "expected"),
    [
        ({}, {}, ""),
        ({"rate": 2, "b": 3}, {}, "rate=2 b=3"),
        ({"a": 5}, {"train.py": "2\n"}, "a=5 edited code"),
        ({"rate": 7, "a": 7, "b": 7}, {"a.py": "2\n"}, "rate=7 a=7 b=7 edited code"),
        ({}, {"a.py": "2\n"}, "edited code"),
    ],
)
def test_what_differs(
    project: Locked, params: dict[str, int], files: dict[str, str], expected: str
) -> None:
    """It says which params and whether code differ from HEAD, until a commit says the latter."""
    scores = {name: value for name, value in params.items() if name != "rate"}
    project.again({**files, **evaluated(params.get("rate", 1), **scores)}, params)
    before = row(project)
    assert before.words == expected
    assert before.name[:-7] == f"{expected} ".lstrip()
    project.commit("The next")
    committed = row(project, rev="HEAD").name
    assert committed == before.name.replace("edited code ", "")
    # What is committed differs no more from HEAD.
    assert row(project).words == ""


@pytest.mark.pipeline
def test_what_differs_while_it_runs(lived: Repository) -> None:
    """A live row says the same, and how a person calls an experiment."""
    assert sorted(names(lived)) == ["", "a=5", "rate=10", "small-lstm rate=9"]
    (row,) = [row for row in lived.rows() if row.data.params["rate"] == "10"]
    generated = row.data.tags["dvc.exp_name"]
    assert is_generated(generated)


@pytest.mark.pipeline
def test_the_same_from_history(lived: Repository, tmp_path: Path) -> None:
    """A lost store gets the same names again, and what is recorded later changes none."""
    copy = lived.copy(tmp_path / "project")
    copy.record("--all")
    lived.record("--all")  # some rows are committed by now
    assert {r.info.run_name for r in copy.rows()} == {r.info.run_name for r in lived.rows()}
    before = {row.info.run_id: row.info.run_name for row in copy.rows()}
    copy.record()
    copy.record("--all")
    assert {row.info.run_id: row.info.run_name for row in copy.rows()} == before


def test_experiments_of_dvc() -> None:
    """A name that DVC has made up is recognized, and none that a person would give."""
    assert all(is_generated(gen_random_name()) for _ in range(2000))
    assert is_generated("exp-1a2b3")
    for name in ("", "small-lstm", "quick-test", "exp-tuned", "mine", "stoic-deva-2"):
        assert not is_generated(name)


def test_three_params(tmp_path: Path) -> None:
    """It says three params at most, a long value not to its end, and keeps the digits."""
    stages = {"train": {**train("raw.txt"), "params": ["rate", "a", "b", "c", "d"]}}
    params = {"rate": 1, "a": 1, "b": 1, "c": 1, "d": 1}
    project = locked(tmp_path / "project", stages, params, trained())
    (project.path / "dvc.lock").unlink()
    project.commit()  # it has no result, so its params.yaml says what differs
    project.again({}, {"a": "x" * 80 + "\\n", "b": [1] * 40, "c": "y" * 80, "d": 2})
    found = row(project)
    assert found.name.startswith(f"a={'x' * 29}… b=[1, 1,")
    assert "d=2" not in found.name
    assert found.name.endswith(f" {found.digests['train'][:7]}")
    assert len(found.name) <= 100


def test_digits(tmp_path: Path) -> None:
    """They are those of the last result; of two last ones, those of both."""
    project = locked(tmp_path / "one", {"train": train("raw.txt"), "a": evaluate("a")}, files=ONE)
    found = row(project)
    assert found.name.split()[-1] == found.digests["a"][:7]
    both = locked(tmp_path / "two", {"train": train("raw.txt"), **BOTH}, files={**ONE, **TWO})
    again = row(both)
    assert again.digests["a"] == found.digests["a"]
    assert again.name.split()[-1] not in {digest[:7] for digest in again.digests.values()}


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
    assert [found.name for found in others] == [
        f"edited code {found.digests['a'][:7]}" for found in others
    ]
    project.add_store()
    project.record("--all")
    assert {run.info.run_name for run in project.rows()} == {
        found.digests["a"][:7] for found in table.rows
    }


@pytest.mark.pipeline
def test_a_name_that_somebody_gave(tmp_path: Path) -> None:
    """A name and a description that a person gave to a running row stay."""
    stages = {"train": {**train("raw.txt"), "cmd": "while [ ! -e go ]; do sleep 0.1; done"}}
    stages["train"]["cmd"] += f"; {train('raw.txt')['cmd']}"
    project = repository(tmp_path / "project", stages)
    with following(project), started(project, "dvc", "repro"):
        (row,) = wait(project.rows)
        project.client.update_run(row.info.run_id, name="mine")
        project.client.set_tag(row.info.run_id, "mlflow.note.content", "my words")
        project.write({"go": ""})
        wait_for_rows(project, "FINISHED")
    (row,) = project.rows()
    assert (row.info.status, row.info.run_name) == ("FINISHED", "mine")
    assert row.data.tags["mlflow.note.content"] == "my words"
