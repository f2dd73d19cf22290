"""Which part of the code may import, load and mention what, and what dvc.yaml says of it."""

import ast
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from support.clone import ROOT, environment
from support.imports import SCRIPTS, STAGES, covering, imported_names

TOOL = ROOT / "dvc_mlflow"
NAMES = {path.stem for path in SCRIPTS}
DVC: dict[str, Any] = YAML(typ="safe").load(ROOT / "dvc.yaml")


def importers(package: str, paths: Iterable[Path]) -> set[Path]:
    """Return the modules that import `package` or something in it."""
    return {
        path
        for path in paths
        if any(f"{name}.".startswith(f"{package}.") for name in imported_names(path))
    }


def modules(part: str) -> list[Path]:
    """Return the modules of a part: the tool, or a folder or a single module in stages/."""
    path = TOOL if part == TOOL.name else STAGES / part
    return sorted(path.rglob("*.py")) if path.is_dir() else [path]


SCIENCE = ["vanilla_lstm", "keras", "tensorflow", "numpy", "pydantic"]
# Each part with the packages that nothing in it may import.
RULES = {
    "dvc_mlflow": SCIENCE,
    "vanilla_lstm/task": ["mlflow", "vanilla_lstm.learning", "keras", "tensorflow"],
    "vanilla_lstm/learning": ["mlflow", "vanilla_lstm.serving"],
    "vanilla_lstm": ["dvc_mlflow", *sorted(NAMES)],
    **{f"{name}.py": ["dvc_mlflow", "mlflow", "vanilla_lstm.serving"] for name in sorted(NAMES)},
}


def test_what_a_part_never_imports() -> None:
    """The pipeline imports neither MLflow nor the tool; the tool imports no science."""
    assert all(modules(part) for part in RULES)
    found = {(part, p): importers(p, modules(part)) for part, ps in RULES.items() for p in ps}
    assert {rule: paths for rule, paths in found.items() if paths} == {}


def test_what_a_part_never_imports_can_fail(tmp_path: Path) -> None:
    """An import is found wherever it appears and however it is written, also a relative one.

    follow/live_row.py has `from ..store.store import`.
    """
    lines = ["import {}", "import {} as k", "from {} import x", "def f():\n    from {}.y import x"]
    sneaky = {tmp_path / f"{i}.py": line.format("a.b") for i, line in enumerate(lines)}
    for path, text in sneaky.items():
        path.write_text(text)
    (tmp_path / "other.py").write_text("import a.bc\nfrom a import c")
    assert importers("a.b", tmp_path.glob("*.py")) == {*sneaky}
    assert TOOL / "follow/live_row.py" in importers("dvc_mlflow.store.store", modules("dvc_mlflow"))


def test_generating_loads_nothing_heavy(tmp_path: Path) -> None:
    """Generating data loads neither TensorFlow nor MLflow, so it takes a fraction of a second."""
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    for package in ("tensorflow", "keras", "mlflow", "matplotlib"):
        (tmp_path / f"{package}.py").write_text(f"raise SystemExit('{package} is loaded')")
    done = subprocess.run(
        [sys.executable, STAGES / "generate_data.py", "train"],
        cwd=tmp_path,
        env=environment(PYTHONPATH=f"{tmp_path}"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "data/train.npz").is_file()


def script_of(stage: dict[str, Any]) -> Path:
    """Return the script that a stage of dvc.yaml runs."""
    start, _, rest = stage["cmd"].partition("python ")
    assert start in ("exec ", "exec dvc-mlflow run ")
    return ROOT / str(rest.split()[0])


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
def test_deps_and_params_are_what_decides_the_bytes(name: str) -> None:
    """A stage re-runs when code, data or params that can change its outputs change, and only then.

    Its params are exactly the sections that its script reads.
    """
    stage = DVC["stages"][name]
    script, arguments = script_of(stage), stage["cmd"].partition(".py")[2].split()
    data = {dep for dep in stage["deps"] if dep.startswith("data/")}
    assert {ROOT / dep for dep in stage["deps"] if dep not in data} == covering(script)
    assert data == {
        "train": {"data/train.npz"},
        "evaluate": {"data/test.npz", "data/model.keras"},
    }.get(name, set())
    assert len(stage["deps"]) <= 6
    assert set(stage["params"]) == sections_read(script.read_text(), arguments)


def test_deps_and_params_can_fail(tmp_path: Path) -> None:
    """Imports and reads are found in functions, and in the right case only.

    A folder counts as a whole; using `params` whole is refused.
    """
    script = tmp_path / "script.py"
    script.write_text("def f():\n    from vanilla_lstm.learning.batches import batches\n")
    assert covering(script) == {script, STAGES / "vanilla_lstm" / "learning"}
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
