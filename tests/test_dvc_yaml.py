"""dvc.yaml lists exactly the code, data and params that decide the outputs of a stage."""

import ast
import inspect
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from support.clone import ROOT
from support.imports import LIBRARY, SCRIPTS, STAGES, covering
from vanilla_lstm.task.schema import Params, PhaseParams, Section

DVC: dict[str, Any] = YAML(typ="safe").load(ROOT / "dvc.yaml")


def script_of(stage: dict[str, Any]) -> Path:
    """Return the script that a stage of dvc.yaml runs."""
    start, _, rest = stage["cmd"].partition("python ")
    assert start in ("exec ", "exec dvc-mlflow run ")
    return ROOT / str(rest.split()[0])


@pytest.mark.parametrize("name", DVC["stages"])
def test_deps_are_what_decides_the_bytes(name: str) -> None:
    """A stage re-runs when code or data that can change its outputs changes, and only then."""
    stage = DVC["stages"][name]
    data = {dep for dep in stage["deps"] if dep.startswith("data/")}
    assert {ROOT / dep for dep in stage["deps"] if dep not in data} == covering(script_of(stage))
    assert data == {
        "train": {"data/train.npz"},
        "evaluate": {"data/test.npz", "data/model.keras"},
    }.get(name, set())
    assert len(stage["deps"]) <= 6


def test_covering_can_fail(tmp_path: Path) -> None:
    """Indirect imports count, and those in functions and packages; a folder counts as a whole."""
    script = tmp_path / "script.py"
    script.write_text("def f():\n    from vanilla_lstm.learning.batches import batches\n")
    assert covering(script) == {script, STAGES / "vanilla_lstm" / "learning"}
    other = tmp_path / "other.py"
    other.write_text("from vanilla_lstm import serving\n")
    assert covering(other) == {
        other,
        *(STAGES / "vanilla_lstm" / name for name in ("task", "learning")),
    }


def sections_read(source: str, arguments: list[str]) -> set[str]:
    """Return the sections that a stage's script reads: the X of every `params.X` in it.

    In a `match` on its arguments, only the case of `arguments` counts. Any other use of `params`
    is refused, as it could read any section.
    """
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Match):
            node.cases = [c for c in node.cases if ast.unparse(c.pattern) == str(arguments)]
    reads = [
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id == "params"
    ]
    uses = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Name) and node.id == "params" and isinstance(node.ctx, ast.Load)
    ]
    assert len(uses) == len(reads), "params is used whole"
    return set(reads)


@pytest.mark.parametrize("name", DVC["stages"])
def test_params_are_the_sections_read(name: str) -> None:
    """A stage re-runs when a section of params that it reads changes, and only then."""
    stage = DVC["stages"][name]
    arguments = stage["cmd"].partition(".py")[2].split()
    assert set(stage["params"]) == sections_read(script_of(stage).read_text(), arguments)


def test_params_are_the_sections_read_can_fail() -> None:
    """Reads are found in any function and the right case only; using `params` whole is refused."""
    source = """
params = read_params()
match sys.argv[1:]:
    case ["a"]:
        f(params.first)
    case ["b"]:
        f(params.second)
def g():
    return params.third.key
"""
    assert sections_read(source, ["a"]) == {"first", "third"}
    assert sections_read(source, ["b"]) == {"second", "third"}
    with pytest.raises(AssertionError, match="whole"):
        sections_read("params = read_params(); f(params)", [])


def names_read(source: str) -> Iterator[str]:
    """Yield the name of every attribute that is read and of every argument of a function."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
            yield node.attr
        elif isinstance(node, ast.arg):
            yield node.arg


def unread_keys(section: type[Section], sources: list[str]) -> set[str]:
    """Return the keys of a section that none of the sources reads."""
    return {field.name for field in fields(section)} - {
        n for source in sources for n in names_read(source)
    }


def methods_used(section: type[Section], sources: list[str]) -> list[str]:
    """Return the source of the methods and properties of a section that the sources use."""
    names = {n for source in sources for n in names_read(source) if not n.startswith("__")}
    methods = [getattr(section, name) for name in vars(section).keys() & names]
    functions = [getattr(method, "fget", method) for method in methods]
    return [textwrap.dedent(inspect.getsource(f)) for f in functions if inspect.isfunction(f)]


@pytest.mark.parametrize("section", [*(field.type for field in fields(Params)), PhaseParams])
def test_every_key_is_read(section: type[Section]) -> None:
    """Every key of params.yaml has an effect: code outside the schema reads it."""
    schema = STAGES / "vanilla_lstm" / "task" / "schema.py"
    sources = [path.read_text() for path in LIBRARY + SCRIPTS if path != schema]
    assert unread_keys(section, sources + methods_used(section, sources)) == set()


def test_every_key_is_read_can_fail() -> None:
    """A key counts as unread if it is only assigned, or read only in a method that nobody calls."""

    @dataclass(frozen=True)
    class Example(Section):
        read: int
        taken: int
        used: int
        unread: int

        @property
        def half(self) -> float:
            return self.used / 2

        def quarter(self) -> float:
            return self.unread / 4

    sources = ["def f(taken): x.unread = s.read + s.half"]
    used = methods_used(Example, sources)
    assert unread_keys(Example, sources + used) == {"unread"}
