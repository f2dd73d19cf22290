"""The bridge as a package, for those who prefer a dependency to a copy."""

import json
import os
import sys
import sysconfig
import tomllib
from pathlib import Path

import pytest
from mlflow import MlflowClient

from bridge.run.files import md5
from clone import ROOT, Clone, make_clone

BRIDGE = ROOT / "stages" / "bridge"
PYPROJECT = tomllib.loads((BRIDGE / "pyproject.toml").read_text())

pytestmark = [
    pytest.mark.pipeline,
    pytest.mark.filterwarnings("ignore"),  # what MLflow's client warns of in the test's process
]

TRAIN = """
from pathlib import Path
import bridge
import dvc_mlflow
from bridge.record import Data, Store, evaluation, training
from bridge.run import run

def main(stage):
    store, data = Store("packaged"), Data("table.csv")
    with training(store, stage, "model", data, params={"train": {"rate": 1}}):
        stage.write("model", b"a model")
    evaluation(store, stage, "model", data, params={}, metrics={"score": 1})
    Path("where").write_text(f"{bridge.__file__}\\n{dvc_mlflow.__file__}")

run(main, reads=["table.csv"])
"""
DVC_YAML = """
stages:
  train:
    cmd: exec python train.py
    deps: [train.py, table.csv, requirements.txt]
    outs: [model, where]
"""


def test_installed(tmp_path: Path) -> None:
    """Two lines of requirements, for the tool and the bridge, are enough for a pipeline."""
    source = make_clone(tmp_path / "source")
    address = f"git+file://{source.path}#subdirectory="
    project = Clone(tmp_path / "project")
    project.path.mkdir()
    for name, text in [("train.py", TRAIN), ("dvc.yaml", DVC_YAML), ("table.csv", "1\n")]:
        (project.path / name).write_text(text)
    (project.path / "requirements.txt").write_text(f"{address}dvc_mlflow\n{address}stages/bridge\n")
    environment = project.path.parent / "environment"
    project.run(sys.executable, "-m", "venv", "--without-pip", str(environment))
    others = sysconfig.get_path("purelib")  # what the bridge depends on
    project.run(
        *(sys.executable, "-m", "pip", "--python", str(environment / "bin" / "python")),
        *("install", "-q", "--no-deps", "--no-build-isolation", "-r", "requirements.txt"),
        PYTHONPATH=others,
    )
    project.git("init", "-q")
    project.dvc("init", "-q")
    # Its python comes first, then the one that has dvc.
    path = [f"{environment}/bin", str(Path(sys.executable).parent), os.environ["PATH"]]
    project.dvc("repro", PATH=os.pathsep.join(path), PYTHONPATH=others)
    installed, tool = (Path(line).parent for line in (project.path / "where").open())
    assert installed.is_relative_to(environment)
    assert tool.is_relative_to(environment)
    assert {p.relative_to(installed) for p in installed.rglob("*.py")} == {
        p.relative_to(BRIDGE) for p in BRIDGE.rglob("*.py")
    }
    client = MlflowClient(f"sqlite:///{project.path}/mlflow.db")
    experiment = client.get_experiment_by_name("packaged")
    assert experiment
    (row,) = client.search_runs([experiment.experiment_id])
    assert row.data.tags["model.md5"] == md5(project.path / "model")
    assert row.data.metrics == {"test/score": 1}


def test_packages_are_the_folders() -> None:
    """No folder of the bridge is left out of the package, and what it imports is required."""
    folders = {path.parent.relative_to(BRIDGE) for path in BRIDGE.rglob("*.py")}
    packages = {".".join(["bridge", *folder.parts]) for folder in folders}
    assert {*PYPROJECT["tool"]["setuptools"]["packages"]} == packages
    needed = {"dvc": True, "dvc_mlflow": True, "mlflow": True, "yaml": True}
    code = "".join(path.read_text() for path in BRIDGE.rglob("*.py"))
    for module, imported in needed.items():
        assert (f"import {module}" in code or f"from {module}" in code) == imported, module
    required = {name.partition(">")[0] for name in PYPROJECT["project"]["dependencies"]}
    assert required == {"dvc", "dvc-mlflow", "mlflow", "pyyaml"}


def test_any_name(tmp_path: Path) -> None:
    """The folder can be copied under any name: its own imports are relative."""
    (tmp_path / "tracking").symlink_to(BRIDGE)
    code = (
        "import json, sys, tracking.record, tracking.run;"
        "print(json.dumps(sorted(name for name in sys.modules if name.startswith('bridge'))))"
    )
    done = Clone(tmp_path).run(sys.executable, "-c", code)
    assert json.loads(done.stdout) == []
