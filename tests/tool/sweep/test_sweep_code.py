"""A sweep's code for nodes needs only Python, and no private name of another package."""

import ast
import sys

import pytest

from support.clone import ROOT
from support.imports import imported_names

pytestmark = [
    pytest.mark.pipeline,
    pytest.mark.filterwarnings("ignore:_NoneStep.value:DeprecationWarning"),  # DVC's index
]


def test_what_nodes_need() -> None:
    """One module imports Ray, and the code sent to nodes needs only Python there."""
    modules = sorted((ROOT / "dvc_mlflow").rglob("*.py"))
    tops = {path: {name.partition(".")[0] for name in imported_names(path)} for path in modules}
    assert [path.name for path in modules if "ray" in tops[path]] == ["schedule.py"]
    (node,) = (path for path in modules if path.name == "node.py")
    assert tops[node] <= sys.stdlib_module_names


def test_no_private_names() -> None:
    """The code uses no private name of DVC, Ray, Optuna or Hydra, and subclasses none of them."""
    tool = ROOT / "dvc_mlflow"
    for path in [tool / "project/experiments.py", *sorted((tool / "sweep").glob("*.py"))]:
        assert private_names(path.read_text()) == [], path


@pytest.mark.parametrize(
    "line",
    [
        "import ray._private.state",
        "from dvc.stage.cache import _get_stage_hash",
        "from hydra._internal import x",
        "repo.stage_cache._load(stage)",
        "class Cache(StageCache): pass",
    ],
)
def test_private_name_is_found(line: str) -> None:
    """`private_names` finds every kind of private name, and foreign base classes."""
    assert private_names(line)


def private_names(source: str) -> list[str]:
    """Return the private names that a module uses from others, and its foreign base classes."""
    found, own = [], {"Exception", "NamedTuple", "Protocol", "ProjectError"}
    ours = {"_repo", "_name", "_replace", "_exit"}  # of the tool's Project, and of Python
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if "._" in alias.name]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            found += [name for name in names if "._" in name]
        elif isinstance(node, ast.Attribute) and node.attr.startswith("_"):
            by_name = isinstance(node.value, ast.Name) and node.value.id == "self"
            if not by_name and not node.attr.startswith("__") and node.attr not in ours:
                found.append(node.attr)
        elif isinstance(node, ast.ClassDef):
            found += [base for base in map(ast.unparse, node.bases) if base not in own]
    return found
