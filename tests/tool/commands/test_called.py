"""`restore`, `forget` and `promote` take a row by its name, its digits or its run id."""

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
    assert own.info.run_name == own.data.tags["dvc-mlflow.lock.own"][:7]
    project.client.update_run(own.info.run_id, name=f'it\'s "mine" 100% {own.info.run_name}')
    for called in (own.info.run_name, f'it\'s "mine" 100% {own.info.run_name}', own.info.run_id):
        assert project.tool("restore", called or "").out.startswith("restored/")


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
    rule = "RUN must be a row's name, the seven digits that end it, or its run id"
    for name in [*NONE, "\x1b[31m"]:
        said = project.tool("restore", name)
        assert (said.status, said.out, said.error.count("\n")) == (1, "", 1)
        assert rule in said.error
        assert "\x1b" not in said.error
    assert not (project.path / "hacked").exists()
