"""A row's model is served with the code and requirements of its result."""

import json
import pickle
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow.entities import Run

from support.pipelines import Repository, evaluate, repository, train
from support.row_content import UNCACHED, model_ids, ran, recorded

pytestmark = [
    pytest.mark.pipeline,
    pytest.mark.filterwarnings("ignore"),  # warnings from MLflow
]


def loader(text: str, mark: Path) -> str:
    """Return the source of a module that loads a model, and creates a file when imported."""
    return f"""
from pathlib import Path

Path({str(mark)!r}).touch()

class Model:
    def __init__(self, text):
        self.text = text

    def predict(self, data, params=None):
        return [f"{text} {{self.text}} {{x}}" for x in data["x"]]

def _load_pyfunc(path):
    path = Path(path)
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    return Model("+".join(file.read_text().strip() for file in files))
"""


def predictions(project: Repository, row: Run) -> list[str]:
    """Return what a row's only model, as MLflow loads it, predicts for x = 1."""
    (model_id,) = model_ids(row)
    place = project.client.get_logged_model(model_id).artifact_location
    return [*map(str, mlflow.pyfunc.load_model(place).predict({"x": [1]}))]


SIGNATURE = {
    "inputs": [{"type": "long", "name": "x", "required": True}],
    "outputs": [{"type": "string", "required": True}],
}


def test_model(tmp_path: Path) -> None:
    """A declared model is served with its result's code, which recording never imports."""
    mark = tmp_path / "imported"
    meta = {
        "loader_module": "greeting.load",
        "code_paths": ["greeting"],
        "pip_requirements": ["six"],
        "signature": SIGNATURE,
    }
    stages = {"train": {**train("raw.txt"), "cmd": "cp raw.txt model.txt; : > curve.csv"}}
    stages["a"] = evaluate("a")
    files = {
        "greeting/load.py": loader("hello", mark),
        "greeting/__pycache__/load.pyc": "compiled",
        "greeting/a/b.py": "",  # git lists it first, a walk of the checkout last
        "greeting/ignored.txt": "ignored",
        "uv.lock": "version = 1\n",
        ".dvcignore": "ignored.txt\n",
    }
    artifacts = {"greeter": {"path": "model.txt", "type": "model", "meta": meta}}
    project = ran(tmp_path, stages, {"rate": 1, "a": 1}, files, artifacts=artifacts)
    project.commit("The results")
    first, said = recorded(project)
    assert said.error == ""
    (model_id,) = model_ids(first)
    logged = project.client.get_logged_model(model_id)
    package = Path(logged.artifact_location.removeprefix("file://"))
    packed = sorted(p.relative_to(package).as_posix() for p in package.rglob("*") if p.is_file())
    assert packed == [
        *("MLmodel", "code/greeting/a/b.py", "code/greeting/load.py", "conda.yaml"),
        *("data/model.txt", "python_env.yaml", "requirements.txt"),
    ]
    assert (package / "requirements.txt").read_text() == f"mlflow=={mlflow.__version__}\nsix"
    assert (logged.status, logged.source_run_id) == ("READY", first.info.run_id)
    assert not mark.exists()
    # A second row with that model, and the same code, has the same logged model.
    project.set({"a": 2})
    project.dvc("repro", "-q")
    project.record()
    assert [*map(model_ids, project.rows())] == [[model_id], [model_id]]
    # Other code is another model, though its bytes are the same.
    project.write({"greeting/load.py": loader("good day", mark)})
    project.set({"a": 3})
    project.dvc("repro", "-q")
    project.record()
    ids = {row.data.params["a"]: model_ids(row) for row in project.rows()}
    assert ids["3"] != [model_id]
    assert not mark.exists()
    # For a commit, the code is read from the commit.
    copy = project.copy(tmp_path / "copy")
    copy.record("--rev", "HEAD")
    (of_commit,) = copy.rows()
    assert of_commit.data.params["a"] == "1"
    (other_id,) = model_ids(of_commit)
    other = copy.client.get_logged_model(other_id)
    assert other.tags["dvc.model"] == logged.tags["dvc.model"]
    code = Path(other.artifact_location.removeprefix("file://"), "code/greeting/load.py")
    assert code.read_text() == loader("hello", mark)
    assert not mark.exists()
    assert predictions(project, first) == ["hello 1 1"]
    assert mark.exists()


def test_models_of_items(tmp_path: Path) -> None:
    """A model can be a folder, and each item of a foreach can have its own."""
    meta = {
        "loader_module": "loaders",
        "code_paths": ["src/loaders.py"],
        "pip_requirements": "w/needs.txt",
    }
    artifacts = {
        item: {"path": f"w/{item}/model", "type": "model", "meta": meta} for item in ("p", "q")
    }
    do = {
        "wdir": "w",
        "cmd": "mkdir -p ${item}/model; echo ${item} > ${item}/model/a; echo b > ${item}/model/b",
        "outs": ["${item}/model"],
    }
    files = {
        "src/loaders.py": loader("folder", tmp_path / "mark"),
        "w/needs.txt": "# what it needs\n--index-url https://example.org\nsix==1.17.0 \\\n"
        "    --hash=sha256:0 # pinned\n\n-r ../other.txt\nnumpy ; python_version > '3'\r\n",
    }
    stages = {"fit": {"foreach": ["p", "q"], "do": do}}
    project = ran(tmp_path, stages, {}, files, artifacts=artifacts)
    project.run("rm", "-r", "w/p", "w/q")  # DVC's cache has them
    said = project.record()
    assert said.error == ""
    rows = {row.data.tags["dvc.stage"]: row for row in project.rows()}
    assert predictions(project, rows["fit@p"]) == ["folder p+b 1"]
    assert predictions(project, rows["fit@q"]) == ["folder q+b 1"]
    (model_id,) = model_ids(rows["fit@p"])
    place = Path(project.client.get_logged_model(model_id).artifact_location[len("file://") :])
    required = (place / "requirements.txt").read_text().splitlines()
    assert required == [
        f"mlflow=={mlflow.__version__}",
        "six==1.17.0",
        'numpy; python_version > "3"',
    ]


@pytest.mark.parametrize("revision", [[], ["--rev", "HEAD"]])
def test_code_beside_a_nested_project(tmp_path: Path, revision: list[str]) -> None:
    """A nested project's model can use code and requirements from elsewhere in the repository."""
    outer = repository(tmp_path / "project", {})
    outer.write({"shared/beside.py": loader("beside", tmp_path / "mark"), "needs.txt": "six\n"})
    meta: dict[str, Any] = {"loader_module": "beside", "code_paths": ["../shared/beside.py"]}
    meta["pip_requirements"] = "../needs.txt"
    model = {"path": "model.txt", "type": "model", "meta": meta}
    fit = {"cmd": "echo 1 > model.txt", "outs": ["model.txt"]}
    declared = {"stages": {"fit": fit}, "artifacts": {"m": model}}
    outer.write({"inner/dvc.yaml": json.dumps(declared)})
    (outer.path / "inner" / ".gitignore").write_text("/model.txt\n")
    inner = Repository(outer.path / "inner")
    inner.dvc("init", "-q", "--subdir")
    inner.dvc("repro", "-q")
    outer.commit("A nested project")
    said = outer.record(*revision, folder="inner")
    assert said.error == ""
    (row,) = outer.rows()
    assert predictions(outer, row) == ["beside 1 1"]


def test_model_that_mlflow_has_saved(tmp_path: Path) -> None:
    """A model that MLflow has saved, a folder with an MLmodel file, is logged unchanged."""
    made = tmp_path / "made"
    (tmp_path / "plain.py").write_text(loader("saved", tmp_path / "mark"))
    (tmp_path / "data.txt").write_text("it")
    mlflow.pyfunc.save_model(
        str(made),
        loader_module="plain",
        data_path=str(tmp_path / "data.txt"),
        code_paths=[str(tmp_path / "plain.py")],
        pip_requirements=["six"],
        metadata={"mine": 1},
    )
    stages = {"train": {"cmd": f"cp -r {made} saved", "outs": ["saved"]}}
    project = ran(tmp_path, stages, artifacts={"m": {"path": "saved", "type": "model"}})
    row, said = recorded(project)
    assert said.error == ""
    assert predictions(project, row) == ["saved it 1"]
    (model_id,) = model_ids(row)
    logged = project.client.get_logged_model(model_id)
    described = Path(logged.artifact_location.removeprefix("file://"), "MLmodel").read_text()
    assert f"model_id: {model_id}" in described
    assert "mine: 1" in described
    assert not (project.path / "saved" / "MLmodel").is_symlink()


def test_model_kept_in_git(tmp_path: Path) -> None:
    """For a commit, a model in git is read from the commit, and so is its code."""
    meta = {"loader_module": "by_git", "code_paths": ["by_git.py"], "pip_requirements": ["six"]}
    stage = {**train("raw.txt"), "outs": [{"model.txt": UNCACHED}]}
    artifacts = {"m": {"path": "model.txt", "type": "model", "meta": meta}}
    files = {"by_git.py": loader("git", tmp_path / "mark")}
    project = ran(tmp_path, {"train": stage}, {"rate": 1}, files, artifacts=artifacts)
    project.commit("The results")
    project.write({"model.txt": "other", "by_git.py": "raise SystemExit"})
    said = project.record("--rev", "HEAD")
    (row,) = project.rows()
    assert said.error == ""
    assert predictions(project, row) == ["git 1\nrate: 1 1"]


def test_model_that_mlflow_loads(tmp_path: Path) -> None:
    """MLflow's own loader needs no code, and gives back what was pickled."""
    from sklearn.dummy import DummyClassifier  # which each worker would import to collect

    model = DummyClassifier(strategy="constant", constant=7).fit([[0]], [7])
    source = tmp_path / "made.pkl"
    source.write_bytes(pickle.dumps(model))
    meta = {"loader_module": "mlflow.sklearn", "pip_requirements": ["scikit-learn"]}
    stages = {"train": {"cmd": f"cp {source} model.pkl", "outs": ["model.pkl"]}}
    artifact = {"path": "model.pkl", "type": "model", "meta": meta}
    project = ran(tmp_path, stages, artifacts={"m": artifact})
    row, said = recorded(project)
    assert said.error == ""
    (model_id,) = model_ids(row)
    place = project.client.get_logged_model(model_id).artifact_location
    assert mlflow.pyfunc.load_model(place).predict([[1]]).tolist() == [7]
    assert mlflow.sklearn.load_model(place).constant == 7
