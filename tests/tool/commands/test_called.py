"""`restore`, `forget` and `promote` take a row by name, digits, DVC experiment or run id."""

from pathlib import Path

import pytest

from support.pipelines import Repository, evaluate, finished, reproduce, train

pytestmark = [
    pytest.mark.pipeline,
    pytest.mark.filterwarnings("ignore"),  # warnings from MLflow
]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """A pipeline with three rows: two of one training, and one in another MLflow experiment."""
    stages = {
        "train": train("raw.txt"),
        "a": evaluate("a"),
        "own": {**evaluate("b", "raw.txt"), "meta": {"mlflow": {"experiment": "own"}}},
    }
    made = finished(tmp_path_factory.mktemp("called") / "project", stages)
    made.record()
    reproduce(made, {"a": 2})
    assert len(made.rows()) == 3
    return made


def test_by_name_and_digits(project: Repository) -> None:
    """A name is enough, in any experiment; so are its digits if no other row has them."""
    for row in project.rows():
        name = row.info.run_name or ""
        said = project.tool("restore", name)
        assert said.status == 0
        assert said.out.startswith("restored/")
        assert (project.path / "restored" / name.replace(" ", "-")).is_dir()
    (own,) = [row for row in project.rows() if "dvc-mlflow.lock.own" in row.data.tags]
    assert (own.info.run_name or "")[:7] == own.data.tags["dvc-mlflow.lock.own"][:7]
    project.client.update_run(own.info.run_id, name=f'it\'s "mine" 100% {own.info.run_name}')
    for called in (own.info.run_name, f'it\'s "mine" 100% {own.info.run_name}', own.info.run_id):
        assert project.tool("restore", called or "").out.startswith("restored/")


def test_by_the_first_digits(project: Repository) -> None:
    """Four or more of a row's digits are enough, unless several rows have them: they are named."""
    first, second = (row for row in project.rows() if "dvc-mlflow.lock.train" in row.data.tags)
    own = [(row.info.run_name or "").split()[0] for row in (first, second)]
    for digits in own:
        for n in (4, 5, 6):
            said = project.tool("restore", digits[:n])
            assert said.out.splitlines()[-1].startswith("restored/"), said
            assert digits in said.out
        assert project.tool("restore", digits[:3]).status == 1
    shared = first.data.tags["dvc-mlflow.lock.train"][:5]
    assert shared == second.data.tags["dvc-mlflow.lock.train"][:5]
    said = project.tool("restore", shared)
    assert (said.status, said.error.count("\n")) == (1, 1)
    assert all(row.info.run_id in said.error for row in (first, second))


def test_by_experiment(tmp_path: Path) -> None:
    """The name of a DVC experiment is enough, but for a row with that name."""
    project = finished(tmp_path / "project", {"a": evaluate("a", "raw.txt")})
    project.record()
    project.dvc("exp", "run", "-q", "-S", "a=3", "-n", "wide")
    project.record("--all")
    wide, first = sorted(project.rows(), key=lambda row: row.data.params["a"], reverse=True)
    said = project.tool("restore", "wide")
    assert (said.status, said.error) == (0, "")
    assert (wide.info.run_name or "").replace(" ", "-") in said.out
    project.client.update_run(first.info.run_id, name="wide")
    assert f"wide-{first.info.run_id[:8]}" in project.tool("restore", "wide").out


def test_without_a_default_experiment(tmp_path: Path) -> None:
    """A name is enough where all rows are in an experiment that dvc.yaml names, also to forget."""
    stage = {**evaluate("b", "raw.txt"), "meta": {"mlflow": {"experiment": "own"}}}
    project = finished(tmp_path / "project", {"own": stage})
    project.record()
    (row,) = project.rows()
    said = project.tool("restore", row.data.tags["dvc-mlflow.lock.own"][:7])
    assert (said.status, said.error) == (0, "")
    assert project.tool("forget", row.info.run_name or "").status == 0
    assert project.rows() == []


def test_several(project: Repository) -> None:
    """If several rows are called so, one line names them."""
    rows = [row for row in project.rows() if "dvc-mlflow.lock.train" in row.data.tags]
    for row in rows:
        project.client.update_run(row.info.run_id, name="same")
    for command in ("restore", "forget", "promote"):
        said = project.tool(command, "same")
        assert (said.status, said.out, said.error.count("\n")) == (1, "", 1)
        assert said.error.startswith("dvc-mlflow: 'same': 2 rows are called so: 'same' (")
        assert all(row.info.run_id in said.error for row in rows)


NONE = ["", "nothing", "0000000", "%", "' or '1' = '1", "\\", "x" * 9000, "../x", "x; touch hacked"]


def test_none(project: Repository) -> None:
    """If no row is called so, one line says what names a row."""
    rule = "ROW must be a row's name, four or more of its digits, its run id or its experiment"
    for name in [*NONE, "\x1b[31m"]:
        said = project.tool("restore", name)
        assert (said.status, said.out, said.error.count("\n")) == (1, "", 1)
        assert rule in said.error
        assert "\x1b" not in said.error
    assert not (project.path / "hacked").exists()
