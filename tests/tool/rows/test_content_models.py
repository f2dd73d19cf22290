"""A row's model is served with the code and requirements of its result."""

import json
import pickle
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow.entities import Run

from dvc_mlflow.pipeline.tags import LOCK, MODEL, STAGE
from support.locked import locked
from support.pipelines import Repository, evaluate, train
from support.rebuilding import lines, recorded
from support.refusals import SECRET

pytestmark = pytest.mark.pipeline


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


def package(project: Repository, row: Run) -> Path:
    """Return the folder of a row's only model."""
    (model_id,) = project.models(row)
    place = project.client.get_logged_model(model_id).artifact_location
    return Path(place.removeprefix("file://"))


def predictions(project: Repository, row: Run) -> list[str]:
    """Return what a row's only model, as MLflow loads it, predicts for x = 1."""
    loaded = mlflow.pyfunc.load_model(str(package(project, row)))
    return [*map(str, loaded.predict({"x": [1]}))]


def test_model(tmp_path: Path) -> None:
    """A declared model is served with its result's code, which recording never imports."""
    mark = tmp_path / "imported"
    meta = {
        "loader_module": "greeting.load",
        "code_paths": ["greeting"],
        "pip_requirements": ["six"],
        "signature": {
            "inputs": [{"type": "long", "name": "x", "required": True}],
            "outputs": [{"type": "string", "required": True}],
        },
    }
    files = {
        "greeting/load.py": loader("hello", mark),
        "greeting/__pycache__/load.pyc": "compiled",
        "greeting/a/b.py": "",  # git lists it first, a walk of the checkout last
        "greeting/ignored.txt": "ignored",
        "uv.lock": "version = 1\n",
        ".dvcignore": "ignored.txt\n",
        "model.txt": "1\n",
        "curve.csv": "",
        "a.json": '{"score": 1}\n',
    }
    artifacts = {"greeter": {"path": "model.txt", "type": "model", "meta": meta}}
    stages, params = {"train": train("raw.txt"), "a": evaluate("a")}, {"rate": 1, "a": 1}
    project = locked(tmp_path / "project", stages, params, files, artifacts=artifacts)
    project.add_store()
    project.commit("The results")
    first, said = recorded(project)
    assert said.error == ""
    place = package(project, first)
    packed = sorted(p.relative_to(place).as_posix() for p in place.rglob("*") if p.is_file())
    assert packed == [
        *("MLmodel", "code/greeting/a/b.py", "code/greeting/load.py", "conda.yaml"),
        *("data/model.txt", "python_env.yaml", "requirements.txt"),
    ]
    assert (place / "requirements.txt").read_text() == f"mlflow=={mlflow.__version__}\nsix"
    (model_id,) = project.models(first)
    logged = project.client.get_logged_model(model_id)
    assert (logged.status, logged.source_run_id) == ("READY", first.info.run_id)
    # A second row with that model, and the same code, has the same logged model.
    project.again({"a.json": '{"score": 2}\n'}, {"a": 2})
    project.record()
    assert [*map(project.models, project.rows())] == [[model_id], [model_id]]
    # Other code is another model, though its bytes are the same.
    project.write({"greeting/load.py": loader("good day", mark)})
    project.again({"a.json": '{"score": 3}\n'}, {"a": 3})
    project.record()
    ids = {row.data.params["a"]: project.models(row) for row in project.rows()}
    assert ids["3"] != [model_id]
    # For a commit, the code is read from the commit.
    copy = project.copy(tmp_path / "copy")
    copy.record("--rev", "HEAD")
    (of_commit,) = copy.rows()
    assert of_commit.data.params["a"] == "1"
    (other_id,) = copy.models(of_commit)
    other = copy.client.get_logged_model(other_id)
    assert other.tags[MODEL] == logged.tags[MODEL]
    code = package(copy, of_commit) / "code/greeting/load.py"
    assert code.read_text() == loader("hello", mark)
    assert not mark.exists()
    assert predictions(project, first) == ["hello 1 1"]
    assert mark.exists()


def test_kinds(tmp_path: Path) -> None:
    """A model can be a folder, an item's, a pickle, or what MLflow has saved, which stays so.

    A nested project's model can use code and requirements from elsewhere in the repository.
    """
    from sklearn.dummy import DummyClassifier  # which each worker would import to collect

    meta = {
        "loader_module": "loaders",
        "code_paths": ["../src/loaders.py"],
        "pip_requirements": "../needs.txt",
    }
    for_pickles = {"loader_module": "mlflow.sklearn", "pip_requirements": ["scikit-learn"]}
    models = [("p/model", meta), ("q/model", meta), ("model.pkl", for_pickles), ("saved", {})]
    artifacts = {
        f"m{i}": {"path": path, "type": "model", "meta": own}
        for i, (path, own) in enumerate(models)
    }
    stages = {
        "fit": {"foreach": ["p", "q"], "do": {"cmd": "run", "outs": ["${item}/model"]}},
        "pickle": {"cmd": "run", "outs": ["model.pkl"]},
        "save": {"cmd": "run", "outs": ["saved"]},
    }
    needs = "# what it needs\n--index-url https://example.org\nsix==1.17.0 \\\n"
    needs += "    --hash=sha256:0 # pinned\n\n-r ../other.txt\nnumpy ; python_version > '3'\r\n"
    project = locked(tmp_path / "project", {})
    project.add_store()
    code = loader("folder", tmp_path / "mark")
    project.write({"src/loaders.py": code, "needs.txt": needs})
    files = {f"{item}/model/{name}": item for item in ("p", "q") for name in ("a", "b")}
    inner = locked(project.path / "inner", {}, {}, files, git=False)
    inner.write({".dvc/config": "", "plain.py": loader("saved", tmp_path / "mark")})
    mlflow.pyfunc.save_model(
        str(inner.path / "saved"),
        loader_module="plain",
        data_path=str(inner.path / "raw.txt"),
        code_paths=[str(inner.path / "plain.py")],
        pip_requirements=["six"],
        metadata={"mine": 1},
    )
    model = DummyClassifier(strategy="constant", constant=7).fit([[0]], [7])
    (inner.path / "model.pkl").write_bytes(pickle.dumps(model))
    inner.again({"dvc.yaml": json.dumps({"stages": stages, "artifacts": artifacts})})
    inner.run("rm", "-r", "p", "q")  # DVC's cache has them
    assert project.record(folder="inner").error == ""
    rows = {row.data.tags[STAGE]: row for row in project.rows()}
    assert predictions(project, rows["fit@p"]) == ["folder p+p 1"]
    assert predictions(project, rows["fit@q"]) == ["folder q+q 1"]
    required = (package(project, rows["fit@p"]) / "requirements.txt").read_text().splitlines()
    assert required == [
        f"mlflow=={mlflow.__version__}",
        "six==1.17.0",
        'numpy; python_version > "3"',
    ]
    assert predictions(project, rows["save"]) == ["saved 1 1"]
    described = (package(project, rows["save"]) / "MLmodel").read_text()
    assert f"model_id: {project.models(rows['save'])[0]}" in described
    assert "mine: 1" in described
    pickled = str(package(project, rows["pickle"]))
    assert mlflow.pyfunc.load_model(pickled).predict([[1]]).tolist() == [7]


GOOD = {"loader_module": "m", "code_paths": ["m.py"], "pip_requirements": ["six"]}
WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "bare": ({"loader_module": "m"}, "pip_requirements: must list the packages"),
    "link": ({**GOOD, "code_paths": ["link.py"]}, "code_paths: 'link.py' is not there"),
    "links": ({**GOOD, "code_paths": ["linked"]}, "code_paths: 'linked' is not there"),
    "above": ({**GOOD, "code_paths": ["away/x.py"]}, "code_paths: 'away/x.py' is not there"),
    "listed": ({**GOOD, "pip_requirements": "link.py"}, "'link.py' is not there"),
    "missing": ({**GOOD, "code_paths": ["n.py"]}, "code_paths: 'n.py' is not there"),
    "shape": ({**GOOD, "signature": {"inputs": ["x"]}}, "model shape: "),
    "kind": ({**GOOD, "signature": {"inputs": [{"type": "no"}]}}, "model kind: "),
    "lost": (GOOD, "model lost: its bytes are neither here nor in DVC's cache"),
    "broken": ({}, "model broken: MLmodel: "),
}
"""What is declared of models that cannot be served, and a part of the line for each."""


def test_models_that_cannot_be_served(tmp_path: Path) -> None:
    """Each model that cannot be served costs one line, and its row is complete without it.

    Files outside the repository that links in `code_paths` lead to are not stored in MLflow.
    """
    metas = {name: meta for name, (meta, _) in WRONG.items()}
    metas["beside"] = {**GOOD, "code_paths": ["code"]}
    stages = {name: {"cmd": "run", "outs": [name]} for name in metas}
    artifacts = {
        name: {"path": name, "type": "model", "meta": meta} for name, meta in metas.items()
    }
    files = {name: name for name in metas if name != "broken"}
    files |= {"m.py": "", "broken/MLmodel": "a: [", "code/m.py": ""}
    project = locked(tmp_path / "project", stages, {}, files, artifacts=artifacts)
    project.add_store()
    (tmp_path / "away").mkdir()
    for name in ("secret.py", "x.py"):
        (tmp_path / "away" / name).write_text(SECRET)
    (project.path / "away").symlink_to("../away")
    (project.path / "linked").mkdir()
    for name in ("link.py", "linked/secret.py", "code/secret.py"):
        (project.path / name).symlink_to(tmp_path / "away" / "secret.py")
    for file in [*(project.path / ".dvc" / "cache").rglob("*"), project.path / "lost"]:
        if file.is_file() and file.read_bytes() == b"lost":
            file.unlink()
    said = lines(project.record())
    for name, (_, part) in WRONG.items():
        starts = (f"model {name}: ", f"dvc.yaml: artifacts.{name}.")
        (line,) = [each for each in said if each.startswith(starts)]
        assert part in line
    assert len(said) == len(WRONG)
    rows = {row.data.tags[STAGE]: row for row in project.rows()}
    assert {*rows} == {*metas}
    assert all(f"{LOCK}{stage}" in row.data.tags for stage, row in rows.items())
    assert [stage for stage, row in rows.items() if project.models(row)] == ["beside"]
    found = project.client.search_logged_models([rows["beside"].info.experiment_id])
    assert len(found) == 1
    stored = [p for p in (project.path / "mlartifacts").rglob("*") if p.is_file()]
    assert not [p for p in stored if SECRET.encode() in p.read_bytes()]
