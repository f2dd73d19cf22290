"""Each folder of the tool imports what its first docstring allows, and the package is complete."""

import ast
import io
import re
import sys
import tokenize
import tomllib
from collections import Counter
from collections.abc import Sequence
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from dvc_mlflow.pipeline import tags
from support.clone import ROOT
from support.imports import imported_names

TOOL = ROOT / "dvc_mlflow"
ROOMS = {
    "pipeline": set[str](),
    "project": {"pipeline"},
    "store": {"pipeline"},
    "rows": {"pipeline", "project"},
    "record": {"pipeline", "project", "store", "rows"},
    "follow": {"pipeline", "project", "store", "rows", "record", "registry"},
    "registry": {"pipeline", "project", "store", "rows"},
    "sweep": {"pipeline", "project", "store", "rows", "record", "follow"},
    "commands": {"pipeline", "project", "store", "rows", "record", "follow", "registry", "sweep"},
}
"""What each folder may import of the others; all may import the modules beside the folders."""
TOP = {"__init__", "__main__", "arguments", "errors", "git", "place", "processes", "work_tree"}
PLACES = {
    "dvc": "project",
    "dvc_data": "project",
    "mlflow.server": "store",
    "mlflow.store": "store",
    "mlflow.utils": "store",
    "sqlalchemy": "store",
    "ray": "sweep",
    "optuna": "sweep",
}
"""The one folder that may import a package; MLflow's public API is free to the rest."""
WITHOUT_MLFLOW = {"pipeline", "project", "rows"}
"""The folders that do not know MLflow: only a `Row` passes between `rows` and `store`."""
MOST = {
    "": 638,  # beside the folders
    "commands": 621,
    "follow": 854,
    "pipeline": 952,
    "project": 1219,
    "record": 290,
    "registry": 150,
    "rows": 1076,
    "store": 923,
    "sweep": 489,
}
"""The most lines of code of each folder, and of a few modules together: they may get fewer."""
METADATA = tomllib.loads((TOOL / "pyproject.toml").read_text())
REQUIRED = dict(each.split(">=") for each in METADATA["project"]["dependencies"])
SWEEP = dict(each.split(">=") for each in METADATA["project"]["optional-dependencies"]["sweep"])
"""The lowest versions of what the tool requires, and of what only `dvc-mlflow sweep` does."""


def trespasses(path: Path, tool: Path = TOOL) -> set[str]:
    """Return what a module of the tool imports though its folder must not."""
    room = path.relative_to(tool).parts[0]
    found = set()
    for name in imported_names(path, tool.parent):
        top, *inside = name.split(".")
        if top == "dvc_mlflow":
            is_room = inside[:1] and inside[0] in ROOMS and inside[0] != room
            if is_room and inside[0] not in ROOMS.get(room, ROOMS):
                found.add(name)
        elif room == "pipeline":
            found |= {name} if top not in sys.stdlib_module_names else set()
        elif top == "mlflow" and room in WITHOUT_MLFLOW:
            found.add(name)
        else:
            places = (p for package, p in PLACES.items() if f"{name}.".startswith(f"{package}."))
            found |= {name for place in places if place != room}
    return found


@pytest.mark.parametrize("room", sorted(ROOMS))
def test_rooms(room: str) -> None:
    """A folder imports only the folders below it, and packages that are its own to touch."""
    assert {
        path: trespasses(path) for path in (TOOL / room).rglob("*.py") if trespasses(path)
    } == {}
    assert (TOOL / room / "__init__.py").read_text().count("import") >= 1  # in its docstring


def test_top() -> None:
    """Few modules stand beside the folders, and import no package that belongs to one."""
    assert {path.stem for path in TOOL.glob("*.py")} == TOP
    for path in TOOL.glob("*.py"):
        assert not [name for name in trespasses(path) if not name.startswith("dvc_mlflow.")], path


@pytest.mark.parametrize(
    ("room", "line"),
    [
        ("pipeline", "import yaml"),
        ("pipeline", "from ..project import Project"),
        ("store", "from dvc.repo import Repo"),
        ("rows", "import mlflow"),
        ("rows", "from ..follow.follower_lock import FollowerLock"),
        ("follow", "import sqlalchemy"),
    ],
)
def test_rooms_can_fail(tmp_path: Path, room: str, line: str) -> None:
    """A wrong import is found wherever it is in a module."""
    sneaky = tmp_path / "dvc_mlflow" / room / "sneaky.py"
    sneaky.parent.mkdir(parents=True)
    sneaky.write_text(f"def f():\n    {line}\n")
    assert trespasses(sneaky, tmp_path / "dvc_mlflow")


def n_lines(path: Path) -> int:
    """Return the number of a module's lines that are neither blank, a comment nor a docstring."""
    text = path.read_text()
    blank = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT)
    found: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in (*blank, tokenize.ENDMARKER):
            found.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if ast.get_docstring(node) is not None:
            first = node.body[0]
            found.difference_update(range(first.lineno, (first.end_lineno or 0) + 1))
    return len(found)


def modules_of(names: str) -> list[Path]:
    """Return the modules of a folder, those beside the folders, or those that are named."""
    if names in ROOMS:
        return [*(TOOL / names).rglob("*.py")]
    return [TOOL / name for name in names.split()] or [*TOOL.glob("*.py")]


@pytest.mark.parametrize("names", MOST)
def test_lines(names: str) -> None:
    """Neither a folder nor a few modules together have more lines of code than they may."""
    assert {"", *ROOMS} <= {*MOST}
    assert 0 < sum(map(n_lines, modules_of(names))) <= MOST[names]


def test_names_of_functions() -> None:
    """A public function's name says what it returns by itself: no two modules have the same one."""
    names = Counter(
        node.name
        for path in TOOL.rglob("*.py")
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.FunctionDef) and node.name[0] != "_"
    )
    assert {name for name, count in names.items() if count > 1} == {"main", "run"}


def test_tags() -> None:
    """CONTRIBUTING's table has each tag of the tool's, and no other."""
    known = {
        key: value for key, value in vars(tags).items() if re.match("[A-Z]", key) and key.isupper()
    }
    own = {v for k, v in known.items() if not v.startswith("mlflow.")}
    own -= {tags.PRIVATE, tags.SWEEP_VARIABLE}
    text = (ROOT / "CONTRIBUTING.md").read_text()
    (table,) = re.findall(r"^\| tag \| what it says \|\n\|---\|---\|\n((?:\|.*\n)+)", text, re.M)
    cells = "".join(line.split("|")[1] for line in table.splitlines())
    assert {re.sub("<.*>$", "", key) for key in re.findall("`(.+?)`", cells)} == own


def mismatches(paths: Sequence[Path], required: set[str]) -> set[str]:
    """Return the packages that are imported but not required, or required but not imported."""
    known = packages_distributions()
    tops = {name.partition(".")[0] for path in paths for name in imported_names(path)}
    imported = {
        # The extra may not be installed here; its distributions are named like their packages.
        top: {re.sub("[-_.]+", "-", name).lower() for name in known.get(top, [top])}
        for top in tops - sys.stdlib_module_names - {TOOL.name}
    }
    undeclared = {top for top, names in imported.items() if not names & required}
    return undeclared | required.difference(*imported.values())


def test_requirements() -> None:
    """The tool requires what it imports and nothing else; the extra is what only sweeps import."""
    modules = sorted(TOOL.rglob("*.py"))
    assert mismatches(modules, {*REQUIRED, *SWEEP}) == set()
    others = [path for path in modules if TOOL / "sweep" not in path.parents]
    assert mismatches(others, {*REQUIRED}) == set()


def test_requirements_can_fail(tmp_path: Path) -> None:
    """An import in a function that is not required is found, and so is a needless requirement."""
    sneaky = tmp_path / "sneaky.py"
    sneaky.write_text("import json, yaml\n\ndef f():\n    from pluggy._hooks import HookSpec\n")
    assert mismatches([sneaky], {"pyyaml", "pluggy"}) == set()
    assert mismatches([sneaky], {"pyyaml"}) == {"pluggy"}
    assert mismatches([sneaky], {"pyyaml", "pluggy", "tqdm"}) == {"tqdm"}


def test_lowest_versions() -> None:
    """The lowest versions that the tool allows are those of `make test-oldest`."""
    pins = (ROOT / "tests/tool/oldest.txt").read_text()
    tested = dict(re.findall(r"^(\S+)==(\S+)", pins, re.M))
    for name, lowest in {**REQUIRED, **SWEEP}.items():
        assert lowest == tested[name], name


def test_highest_versions() -> None:
    """The README's versions of DVC and MLflow are the lowest and the pinned ones."""
    pins = dict(re.findall(r"^(\S+)==(\S+)", (ROOT / "requirements.txt").read_text(), re.M))
    text = " ".join((TOOL / "README.md").read_text().split())
    for name, shown in {"dvc": "DVC", "mlflow": "MLflow"}.items():
        assert f"{shown} {REQUIRED[name]} to {pins[name]}" in text


def test_packages_are_the_folders() -> None:
    """The tool's package contains all its folders."""
    folders = {path.parent.relative_to(TOOL.parent) for path in TOOL.rglob("*.py")}
    packages = {".".join(folder.parts) for folder in folders}
    assert {*METADATA["tool"]["setuptools"]["packages"]} == packages
