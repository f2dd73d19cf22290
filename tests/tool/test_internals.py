"""All private names of DVC and MLflow that the tool uses are in one list, and they are there."""

import ast
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path

import pytest

from support.clone import ROOT

pytestmark = [
    pytest.mark.versions,
    pytest.mark.filterwarnings("ignore"),  # warnings from MLflow
]

TOOL = ROOT / "dvc_mlflow"
INTERNALS = {
    "_artifacts": "dvc.repo.index:Index",
    "_metrics": "dvc.repo.index:Index",
    "_params": "dvc.repo.index:Index",
    "_plots": "dvc.repo.index:Index",
    "_build": "dvc.output:Output",
    "_reset": "scmrepo.git:Git",
    "_global_filters": "dulwich.ignore:IgnoreFilterManager",
    "_ignorecase": "dulwich.ignore:IgnoreFilterManager",
    "_get_latest_schema_revision": "mlflow.store.db.utils:",
    "_get_schema_version": "mlflow.store.db.utils:",
    "_verify_schema": "mlflow.store.db.utils:",
    "_tracking_service": "mlflow.tracking:",
    "_GENERATOR_NOUNS": "mlflow.utils.name_utils:",
    "_GENERATOR_PREDICATES": "mlflow.utils.name_utils:",
}
"""Each private name with the module, and the class in it, whose it is."""
OF_PYTHON = {"_asdict", "_exit", "_replace"}


def private(paths: Iterable[Path]) -> set[str]:
    """Return the private attributes that some modules use and none of them defines."""
    used, own = set[str](), set[str]()
    for path in paths:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                own.add(node.name)
            elif isinstance(node, ast.Attribute) and node.attr.startswith("_"):
                is_set = isinstance(node.ctx, ast.Store) and ast.unparse(node.value) == "self"
                (own if is_set else used).add(node.attr)
    return {name for name in used - own - OF_PYTHON if not name.startswith("__")}


def test_all_are_listed() -> None:
    """The tool uses no private name of another package that is not in the list, and all of it."""
    modules = sorted(TOOL.rglob("*.py"))
    assert private(modules) <= INTERNALS.keys()
    text = "".join(module.read_text() for module in modules)
    assert [name for name in INTERNALS if f".{name}" not in text] == []


@pytest.mark.parametrize(("name", "owner"), INTERNALS.items())
def test_they_are_there(name: str, owner: str) -> None:
    """This version of DVC and MLflow has each of them."""
    module, _, class_ = owner.partition(":")
    found = import_module(module)
    if class_:
        found = getattr(found, class_)
        is_set = name in found.__init__.__code__.co_names
    assert hasattr(found, name) or (class_ and is_set)


def test_listing_can_fail(tmp_path: Path) -> None:
    """A private name of another package is found, and one of the module's own is not."""
    sneaky = tmp_path / "sneaky.py"
    sneaky.write_text("class A:\n    def _own(self):\n        return self._own, repo._hidden\n")
    assert private([sneaky]) == {"_hidden"}
