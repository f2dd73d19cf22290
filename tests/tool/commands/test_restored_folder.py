"""`dvc-mlflow restore` puts each row in its own folder, and says where this machine differs."""

from pathlib import Path

import mlflow
import pytest

from support.live_runs import last, recorded
from support.pipelines import LOADER, SERVED, Repository, repository
from support.restoring import contents, restore, restored

pytestmark = [
    pytest.mark.pipeline,
    pytest.mark.filterwarnings("ignore"),  # warnings from MLflow
]


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """A recorded pipeline with a model, and two rows whose results are committed."""
    files = {"loader.py": LOADER, "requirements.txt": "mlflow\n"}
    project = repository(tmp_path_factory.mktemp("made") / "project", recorded(SERVED), files=files)
    for rate in (1, 2):
        project.set({"rate": rate})
        project.dvc("repro", "-q")
        project.commit("Results")
    return project


@pytest.fixture
def project(made: Repository, tmp_path: Path) -> Repository:
    """A copy of that pipeline with its store."""
    return made.copy_with_rows(tmp_path / "project")


def test_no_such_row(project: Repository) -> None:
    """Anything but a row's id is refused in one line, and reaches neither a shell nor a path."""
    before = contents(project.path)
    for name in ("", "0" * 32, "../x", "x; touch hacked", "\x1b[31m"):
        said = restore(project, name)
        assert (said.out, said.status) == ("", 1)
        assert said.error.count("\n") == 1
        assert "\x1b" not in said.error
    assert contents(project.path) == before
    assert not (project.path / "restored").exists()


def test_rows_of_one_name(project: Repository) -> None:
    """Two rows with the same name get two folders, and each keeps its own."""
    rows = project.rows()
    for run in rows:
        project.client.set_tag(run.info.run_id, "mlflow.runName", "../a b")
    first, second = (restored(project, run).path for run in project.rows())
    assert (first.name, second.name) == ("a-b", f"a-b-{rows[1].info.run_id[:8]}")
    assert restored(project, project.rows()[1]).path == second
    assert "rate: 2" in (second / "params.yaml").read_text()


def test_cache_of_links(project: Repository) -> None:
    """A row is restored, and found again, also where DVC links files to its cache."""
    project.dvc("config", "--local", "cache.type", "symlink")
    folder = restored(project, last(project))
    assert (folder.path / "model.txt").is_symlink()
    assert "already exists" in restore(project, last(project)).out


def test_environment(project: Repository) -> None:
    """A row names the environment of its run, and `restore` says where this one differs."""
    row = last(project)
    assert row.data.tags["python"].startswith("3.")
    assert row.data.tags["requirements.md5"] == "31d36cc84c0a9fae1ca28f5a3ec565a4"
    assert "the row was made with" not in restore(project, row).out
    project.client.set_tag(row.info.run_id, "processor", "an abacus")
    said = restore(project, row)
    assert said.status == 0
    assert "processor: the row was made with an abacus; here it is " in said.out


def test_registered_model_moves(project: Repository) -> None:
    """A model that was registered is found after its repository was moved."""
    mlflow.set_tracking_uri(f"sqlite:///{project.path}/mlflow.db")
    (output,) = last(project).outputs.model_outputs
    mlflow.register_model(f"models:/{output.model_id}", "best")
    moved = Repository(project.path.rename(project.path.with_name("moved")))
    moved.record()
    mlflow.set_tracking_uri(f"sqlite:///{moved.path}/mlflow.db")
    assert mlflow.pyfunc.load_model("models:/best/1").predict([1]) == ["1\nrate: 2\n"]
