"""Few modules of the tool touch DVC and MLflow's internals, and its package is complete."""

import re
import tomllib
from collections.abc import Sequence
from pathlib import Path

import pytest

from clone import ROOT
from imports import imported_names

TOOL = ROOT / "dvc_mlflow"
RULES = {
    "dvc": ["project/*"],
    "dvc_data": ["project/*"],
    "mlflow.store": ["database.py", "store.py"],
    "mlflow.utils": ["store.py"],
    "mlflow.tracking": [],
    "mlflow.pyfunc": ["models.py"],
    "sqlalchemy": ["database.py", "faults.py"],
}
"""The modules that may import a package, and nothing else may."""


def importers(package: str, paths: Sequence[Path]) -> list[Path]:
    """Return the modules that import a package, or something in it."""
    return [
        path
        for path in paths
        if any(f"{name}.".startswith(f"{package}.") for name in imported_names(path))
    ]


@pytest.mark.parametrize(("package", "allowed"), RULES.items())
def test_one_place(package: str, allowed: list[str]) -> None:
    """Only the listed modules import DVC or MLflow's internals, which new versions may change."""
    found = importers(package, sorted(TOOL.rglob("*.py")))
    others = [path for path in found if not any(path.match(f"dvc_mlflow/{p}") for p in allowed)]
    assert others == []
    assert bool(found) == bool(allowed)


def test_one_place_can_fail(tmp_path: Path) -> None:
    """An import is found wherever it is in a module."""
    sneaky = tmp_path / "sneaky.py"
    sneaky.write_text("def f():\n    from dvc.repo import Repo\n    return Repo\n")
    assert importers("dvc", [sneaky]) == [sneaky]


def test_packages_are_the_folders() -> None:
    """The tool's package contains all its folders, and requires what they import."""
    project = tomllib.loads((TOOL / "pyproject.toml").read_text())
    folders = {path.parent.relative_to(TOOL.parent) for path in TOOL.rglob("*.py")}
    packages = {".".join(folder.parts) for folder in folders}
    assert {*project["tool"]["setuptools"]["packages"]} == packages
    required = {re.split("[<>=]", name)[0] for name in project["project"]["dependencies"]}
    assert required == {"dvc", "mlflow", "psutil", "pyyaml"}
