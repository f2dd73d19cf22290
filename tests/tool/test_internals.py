"""What the tool uses of DVC and MLflow beyond their documented API is in one list, and is there."""

import ast
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from pkgutil import resolve_name

import pytest

from support.clone import ROOT

pytestmark = [
    pytest.mark.versions,
    pytest.mark.filterwarnings("ignore"),  # warnings from MLflow
]

TOOL = ROOT / "dvc_mlflow"
PAGE = (TOOL / "INTERNALS.md").read_text()
PACKAGES = ("dvc", "dvc_data", "dvc_objects", "scmrepo", "dulwich", "mlflow")
NAME = rf"`((?:{'|'.join(PACKAGES)})(?:\.\w+)*)`"
LISTED = {*re.findall(NAME, PAGE)} - {"dvc.api", "mlflow"}
DOCUMENTED = re.compile(
    r"mlflow(\.(MlflowClient|artifacts|entities|environment_variables|exceptions|models|pyfunc)\b.*)?"
)
OF_OBJECTS = {"scmrepo.fs.GitFileSystem.fs.trie.open"}
"""What is reached on objects alone."""
OF_PYTHON = {"_asdict", "_exit", "_replace"}


def imported(tree: ast.AST) -> dict[str, str]:
    """Return what a module imports from DVC and MLflow: the dotted name of each by its own name."""
    found = dict[str, str]()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and not node.level and node.module:
            found |= {each.asname or each.name: f"{node.module}.{each.name}" for each in node.names}
        elif isinstance(node, ast.Import):
            found |= {each.asname or each.name: each.name for each in node.names}
    return {own: name for own, name in found.items() if name.partition(".")[0] in PACKAGES}


def reached(tree: ast.AST) -> Iterator[str]:
    """Yield what a module imports beyond the documented API, and what it replaces."""
    names = imported(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.AnnAssign) and ast.unparse(node.value or node) in names:
            names[ast.unparse(node.target)] = names[ast.unparse(node.value or node)]
    yield from (name for name in names.values() if not DOCUMENTED.fullmatch(name))
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            owner = ast.unparse(node.value)
            if owner in names or owner.startswith("mlflow."):
                yield f"{names.get(owner, owner)}.{node.attr}"


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
    """The tool reaches and replaces what the list has, and nothing else."""
    modules = sorted(TOOL.rglob("*.py"))
    found = {name for path in modules for name in reached(ast.parse(path.read_text()))}
    named = {last: name for name in LISTED if (last := name.rpartition(".")[2]).startswith("_")}
    text = "".join(path.read_text() for path in modules)
    found |= {name for last, name in named.items() if f".{last}" in text}
    assert found - LISTED == set()
    assert private(modules) - named.keys() == set()
    assert LISTED - found - OF_OBJECTS == set()


@pytest.mark.parametrize("name", sorted(LISTED - OF_OBJECTS))
def test_they_are_there(name: str) -> None:
    """This version of DVC and MLflow has each of them."""
    try:
        resolve_name(name)
    except AttributeError:  # of each of its objects
        owner, _, last = name.rpartition(".")
        assert last in resolve_name(owner).__init__.__code__.co_names


def test_number_in_readme() -> None:
    """README says how many there are."""
    (number,) = re.findall(r"(\d+) names of DVC and MLflow", (ROOT / "README.md").read_text())
    assert int(number) == len(LISTED)


def test_listing_can_fail(tmp_path: Path) -> None:
    """What another package has for itself is found, and what is the module's own is not."""
    sneaky = tmp_path / "sneaky.py"
    sneaky.write_text(
        "from dvc.repo.index import Index as Own\n"
        "import mlflow\n"
        "class A:\n    def _own(self):\n        return self._own, repo._hidden\n"
        "Own.read = None\n"
        "mlflow.utils.LIMIT = 1\n"
    )
    assert private([sneaky]) == {"_hidden"}
    assert {*reached(ast.parse(sneaky.read_text()))} == {
        "dvc.repo.index.Index",
        "dvc.repo.index.Index.read",
        "mlflow.utils.LIMIT",
    }
