"""A row's name says what differs, ends with its result's digits, and is the same however made."""

from pathlib import Path

import pytest
from dvc.repo.experiments.utils import gen_random_name
from mlflow.entities import Run

from dvc_mlflow.project import is_generated
from support.fronts import reproduced_in_front
from support.live_runs import wait
from support.pipelines import PARAMS, TWO_EVALUATIONS, Repository, evaluate, repository, train

pytestmark = [
    pytest.mark.pipeline,
    pytest.mark.versions,
    pytest.mark.filterwarnings("ignore"),  # warnings from MLflow
]

STAGES = {
    **TWO_EVALUATIONS,
    "train": {**train(), "deps": ["data.txt", "train.py"]},
    "a": {**evaluate("a"), "deps": ["model.txt", "a.py"]},
}
FILES = {"train.py": "1\n", "a.py": "1\n"}


def digits(row: Run, stage: str = "train") -> str:
    """Return the digits of a row's result of a stage."""
    return str(row.data.tags[f"dvc-mlflow.lock.{stage}"][:7])


def names(project: Repository) -> list[str]:
    """Return the names of the rows, oldest first, without the digits of their trainings."""
    return [(row.info.run_name or "").removesuffix(digits(row)).strip() for row in project.rows()]


def reproduced(project: Repository, *more: str) -> None:
    """Run the pipeline with its recorder."""
    project.run("dvc-mlflow", "dvc", *(more or ("repro",)))


@pytest.fixture(scope="module")
def lived(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """A pipeline that was recorded live while its params and its code changed."""
    path = tmp_path_factory.mktemp("lived") / "project"
    made = repository(path, STAGES, {**PARAMS, "long": [1]}, FILES)
    reproduced(made)
    made.commit("The first")
    for params, files in [
        ({"rate": 2, "b": 3}, {}),
        ({"a": 5}, {"train.py": "2\n"}),
        ({"rate": 7, "a": 7, "b": 7}, {"a.py": "2\n"}),
    ]:
        made.set(params)
        made.write(files)
        reproduced(made)
        made.commit("The next")
    reproduced(made, "exp", "run", "-q", "-n", "small-lstm", "-S", "rate=9")
    made.git("checkout", "-q", ".")
    reproduced(made, "exp", "run", "-q", "--temp", "-S", "rate=10")
    return made


def test_what_differs(lived: Repository) -> None:
    """It says which params and whether code differ from HEAD, and how a person calls it."""
    assert names(lived) == [
        "",
        "rate=2 b=3",
        "a=5 edited code",
        "rate=7 a=7 b=7 edited code",
        "small-lstm rate=9",
        "rate=10",
    ]
    generated = lived.rows()[-1].data.tags["dvc.exp_name"]
    assert is_generated(generated)


def test_the_same_from_history(lived: Repository, tmp_path: Path) -> None:
    """A lost store gets the same names again, and what is recorded later changes none."""
    copy = lived.copy(tmp_path / "project")
    copy.record("--all")
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
    project = repository(tmp_path / "project", stages, params)
    project.set({"a": "x" * 80 + "\\n", "b": [1] * 40, "c": "y" * 80, "d": 2})
    project.dvc("repro", "-q")
    project.record()
    (row,) = project.rows()
    name = row.info.run_name or ""
    assert name.startswith(f"a={'x' * 29}… b=[1, 1,")
    assert "d=2" not in name
    assert name.endswith(f" {digits(row)}")
    assert len(name) <= 100


def test_no_two_rows_share_a_name(tmp_path: Path) -> None:
    """Corrections of an evaluation alone, which say the same, end with the evaluation's digits."""
    stages = {"train": train("raw.txt"), "a": evaluate("a")}
    stages["a"] = {**stages["a"], "cmd": "cat a.py > a.json", "deps": ["model.txt", "a.py"]}
    project = repository(tmp_path / "project", stages, files={"a.py": '{"score": 1}'})
    reproduced(project)
    for score in (2, 3, 4):
        project.commit("Results")
        project.write({"a.py": f'{{"score": {score}}}'})
        reproduced(project)
    first, *others = project.rows()
    assert first.info.run_name == digits(first)
    assert [row.info.run_name for row in others] == [
        f"edited code {digits(others[0])}",
        *(f"edited code {digits(row, 'a')}" for row in others[1:]),
    ]
    copy = project.copy(tmp_path / "copy")
    copy.commit("The last")
    copy.record("--all")
    assert {r.info.run_name for r in copy.rows()} == {r.info.run_name for r in project.rows()}


def test_a_name_that_somebody_gave(tmp_path: Path) -> None:
    """A name and a description that a person gave to a running row stay."""
    stages = {"train": {**train("raw.txt"), "cmd": "while [ ! -e go ]; do sleep 0.1; done"}}
    stages["train"]["cmd"] += f"; {train('raw.txt')['cmd']}"
    project = repository(tmp_path / "project", stages)
    with reproduced_in_front(project) as dvc:
        (row,) = wait(project.rows)
        project.client.update_run(row.info.run_id, name="mine")
        project.client.set_tag(row.info.run_id, "mlflow.note.content", "my words")
        project.write({"go": ""})
        dvc.communicate()
    (row,) = project.rows()
    assert (row.info.status, row.info.run_name) == ("FINISHED", "mine")
    assert row.data.tags["mlflow.note.content"] == "my words"
