"""`dvc-mlflow restore` puts each row in its own folder."""

import shutil
from pathlib import Path

import mlflow
import pytest

from support.pipelines import (
    ARTIFACTS,
    LOADER,
    SERVED,
    Repository,
    evaluate,
    finished,
    last,
    makes,
    repository,
    reproduce,
)
from support.restoring import folder_of, restore, restored

pytestmark = [
    pytest.mark.pipeline,
    pytest.mark.filterwarnings("ignore"),  # warnings from MLflow
]


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """A recorded pipeline with a model, and two rows whose results are committed."""
    files = {"loader.py": LOADER, "requirements.txt": "mlflow\n"}
    folder = tmp_path_factory.mktemp("made") / "project"
    project = repository(folder, SERVED, files=files, artifacts=ARTIFACTS)
    for rate in (1, 2):
        project.set({"rate": rate})
        reproduce(project)
        project.commit("Results")
    return project


@pytest.fixture
def project(made: Repository, tmp_path: Path) -> Repository:
    """A copy of that pipeline with its store."""
    return made.copy_with_rows(tmp_path / "project")


def test_rows_of_one_name(project: Repository) -> None:
    """Two rows with the same name get two folders, and each keeps its own."""
    rows = project.rows()
    for run in rows:
        project.client.set_tag(run.info.run_id, "mlflow.runName", "../a b")
    first, second = (restored(project, run).path for run in project.rows())
    assert [first.name, second.name] == [f"a-b-{run.info.run_id[:8]}" for run in rows]
    assert restored(project, project.rows()[1]).path == second
    assert "rate: 2" in (second / "params.yaml").read_text()


def test_cache_of_links(project: Repository) -> None:
    """A row is restored, and found again, also where DVC links files to its cache."""
    project.dvc("config", "--local", "cache.type", "symlink")
    folder = restored(project, last(project))
    assert (folder.path / "model.txt").is_symlink()
    assert "already exists" in restore(project, last(project)).out


def test_registered_model_moves(project: Repository) -> None:
    """A model that was registered is found after its repository was moved."""
    mlflow.set_tracking_uri(f"sqlite:///{project.path}/mlflow.db")
    (output,) = last(project).outputs.model_outputs
    mlflow.register_model(f"models:/{output.model_id}", "best")
    moved = Repository(project.path.rename(project.path.with_name("moved")))
    moved.record()
    mlflow.set_tracking_uri(f"sqlite:///{moved.path}/mlflow.db")
    assert mlflow.pyfunc.load_model("models:/best/1").predict([1]) == ["1\nrate: 2\n"]


def test_nothing_is_removed(tmp_path: Path) -> None:
    """A second `restore` removes no file, though DVC's cache is gone and somebody added files."""
    folder = makes({"d/x": "1", "m.json": '{"n": 1}'}, outs=["d"], metrics=["m.json"])
    project = finished(tmp_path / "project", {"one": {**folder, "deps": ["raw.txt"]}})
    project.record()
    (row,) = project.rows()
    place = folder_of(project, restore(project, row)).path
    (place / "d/mine").write_text("mine")
    shutil.rmtree(project.path / ".dvc/cache")
    before = {path: path.read_bytes() for path in sorted((place / "d").iterdir())}
    assert [path.name for path in before] == ["mine", "x"]
    restore(project, row)
    assert {path: path.read_bytes() for path in sorted((place / "d").iterdir())} == before


def test_nothing_is_overwritten(project: Repository) -> None:
    """What somebody edited in a restored folder stays, and is named."""
    run = last(project)
    place = restored(project, run).path
    (place / "model.txt").unlink()  # it can be a link to DVC's cache
    (place / "model.txt").write_text("mine\n")
    said = restore(project, run)
    (line,) = said.error.splitlines()
    assert line.endswith(" is missing: another one is here; delete that, and restore again")
    assert (said.status, (place / "model.txt").read_text()) == (1, "mine\n")
    (place / "model.txt").unlink()
    assert restored(project, run).path == place
    (place / "loader.py").write_text("# mine\n")
    assert restore(project, run).status == 0
    assert (place / "loader.py").read_text() == "# mine\n"


def test_result_of_a_merge(tmp_path: Path) -> None:
    """A row whose commit is a merge of other work, with spaces in file names, is restored."""
    project = repository(tmp_path / "project", {"a": evaluate("a", "raw.txt")})
    project.git("switch", "-q", "-c", "side")
    project.write({"a file with spaces.txt": "1"})
    project.commit("Side")
    project.git("switch", "-q", "main")
    reproduce(project)
    project.git("merge", "-q", "--no-ff", "--no-commit", "side")
    project.commit("Merge, with the result")
    assert project.record("--all").status == 0
    (row,) = project.rows()
    restored(project, row)


def test_infinity(tmp_path: Path) -> None:
    """A metric that is infinite is what the row says, though stores clip it."""
    stage = makes({"m.json": '{"n": Infinity}'}, deps=["raw.txt"], metrics=["m.json"])
    project = finished(tmp_path / "project", {"one": stage})
    project.record()
    restored(project, project.rows()[0])
