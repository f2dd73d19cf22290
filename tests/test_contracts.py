"""What the code promises about itself: who imports what, and what dvc.yaml says of it."""

import ast
import hashlib
import inspect
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from clone import ROOT, environment
from imports import STAGES, closure, imported_names
from vanilla_lstm.params import Params, PhaseParams, Section, parse_params

LIBRARY = sorted(STAGES.glob("vanilla_lstm/*.py"))
SCRIPTS = sorted(STAGES.glob("*.py"))
NAMES = {path.stem for path in SCRIPTS}
DVC: dict[str, Any] = YAML(typ="safe").load(ROOT / "dvc.yaml")
LOCK: dict[str, Any] = YAML(typ="safe").load(ROOT / "dvc.lock")


def importers(package: str, paths: list[Path]) -> set[str]:
    """Return the names of the modules that import `package` or something in it."""
    return {
        path.name
        for path in paths
        if any(name.split(".")[0] == package for name in imported_names(path.read_text()))
    }


@pytest.mark.parametrize(
    ("package", "allowed"),
    [
        ("mlflow", {"store.py", "tracking.py", "serving.py"}),  # serving.py runs in MLflow's server
        ("keras", {"backend.py"}),
        ("tensorflow", {"backend.py"}),
        ("ruamel", {"params.py"}),
        ("pydantic", {"params.py"}),
        ("ray", set()),  # no stage knows that it may run on a cluster
        ("sweeps", set()),
    ],
)
def test_one_importer(package: str, allowed: set[str]) -> None:
    """Each big package is used in its own place only, so it can be changed in one place."""
    assert importers(package, LIBRARY + SCRIPTS) == allowed


def test_one_importer_can_fail(tmp_path: Path) -> None:
    """An import is found wherever it stands and however it is written."""
    module = tmp_path / "sneaky.py"
    for line in ("import mlflow", "import mlflow.keras as k", "from mlflow.models import Model"):
        module.write_text(f"def f():\n    {line}\n")
        assert importers("mlflow", [module]) == {"sneaky.py"}


def test_cluster() -> None:
    """Ray has one place in cluster/; what is sent to nodes needs nothing but Python there."""
    modules = sorted((ROOT / "cluster").glob("**/*.py"))
    assert importers("ray", modules) == {"schedule.py"}
    sent = imported_names((ROOT / "cluster" / "sweeps" / "node.py").read_text())
    assert {name.split(".")[0] for name in sent} <= sys.stdlib_module_names


@pytest.mark.parametrize("module", ["sequences.py", "evaluation.py", "params.py", "artifacts.py"])
def test_light_modules(module: str) -> None:
    """What generate_data.py needs imports neither TensorFlow nor MLflow, directly or not."""
    imported = closure(STAGES / "vanilla_lstm" / module)
    assert not {path.name for path in imported} & {
        "backend.py",
        "store.py",
        "tracking.py",
        "model.py",
    }


def test_no_module_imports_a_stage() -> None:
    """The stages stand on the library, never the library on a stage."""
    for path in LIBRARY:
        assert NAMES.isdisjoint(name.split(".")[-1] for name in imported_names(path.read_text()))


def heavy_modules_of(script: str, folder: Path) -> set[str]:
    """Return which of the heavy packages are loaded after `script` has run in `folder`."""
    code = (
        "import os, runpy, sys; sys.argv[:] = sys.argv[1:];"
        "sys.path[0] = os.path.dirname(sys.argv[0]);"
        "runpy.run_path(sys.argv[0], run_name='__main__');"
        "print(*{'tensorflow', 'keras', 'mlflow', 'matplotlib'} & sys.modules.keys())"
    )
    run = [sys.executable, "-c", code, script, "train"]
    done = subprocess.run(
        run, cwd=folder, env=environment(), capture_output=True, text=True, check=True
    )
    return set(done.stdout.splitlines()[-1].split())


def test_generating_loads_nothing_heavy(tmp_path: Path) -> None:
    """Data is made in a fraction of a second, without TensorFlow and MLflow."""
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    assert heavy_modules_of(str(STAGES / "generate_data.py"), tmp_path) == set()


def test_generating_loads_nothing_heavy_can_fail(tmp_path: Path) -> None:
    """A heavy package that a script loads is seen."""
    (tmp_path / "mlflow.py").touch()
    (tmp_path / "script.py").write_text("def f():\n    import mlflow\nf()\nprint('done')")
    assert heavy_modules_of("script.py", tmp_path) == {"mlflow"}


def script_of(stage: dict[str, Any]) -> Path:
    """Return the script that a stage of dvc.yaml runs."""
    exec_, python, script, *_ = stage["cmd"].split()
    # Without `exec` a shell may stay between `dvc` and the stage: `stage.check_wanted`.
    assert (exec_, python) == ("exec", "python")
    return ROOT / str(script)


def code_deps(stage: dict[str, Any]) -> set[Path]:
    """Return the deps of a stage of dvc.yaml that are code."""
    return {ROOT / dep for dep in stage["deps"] if dep.endswith(".py")}


@pytest.mark.parametrize("name", DVC["stages"])
def test_deps_are_the_import_closure(name: str) -> None:
    """A stage re-runs when a module that it imports changes, and for no other module."""
    stage = DVC["stages"][name]
    script = script_of(stage)
    assert code_deps(stage) == closure(script)
    data = {dep for dep in stage["deps"] if dep.startswith("data/")}
    assert data == {
        "train": {"data/train.npz"},
        "evaluate": {"data/test.npz", "data/model.keras"},
    }.get(name, set())
    assert len(stage["deps"]) == len(code_deps(stage)) + len(data)


def test_closure_can_fail(tmp_path: Path) -> None:
    """The closure follows imports of imports, in functions and from packages."""
    package = tmp_path / "package"
    package.mkdir()
    files = [tmp_path / "script.py", package / "__init__.py", package / "a.py", package / "b.py"]
    texts = ["def f():\n    from package import a", "", "from package.b import x", "x = 1"]
    for file, text in zip(files, texts, strict=True):
        file.write_text(text)
    (package / "unused.py").touch()
    assert closure(files[0], tmp_path) == set(files)


def sections_read(source: str, arguments: list[str]) -> set[str]:
    """Return the sections that a stage's script reads: the X of every `params.X` in it.

    In a `match` on its arguments, the case of `arguments` is the one that counts. `params` may be
    used in no other way, so that nothing else can read a section.
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
    """A stage re-runs when a param that it reads changes, and for no other param."""
    stage = DVC["stages"][name]
    arguments = stage["cmd"].split()[3:]
    assert set(stage["params"]) == sections_read(script_of(stage).read_text(), arguments)


def test_params_are_the_sections_read_can_fail() -> None:
    """Reads are found in any function, of the right case, and not behind a whole `params`."""
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
    """Yield every attribute that is read, and every name that a function takes."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
            yield node.attr
        elif isinstance(node, ast.arg):
            yield node.arg


def unread_keys(section: type[Section], sources: list[str]) -> set[str]:
    """Return the keys of a section that none of the sources reads."""
    return section.model_fields.keys() - {n for source in sources for n in names_read(source)}


def methods_used(section: type[Section], sources: list[str]) -> list[str]:
    """Return the source of a section's own methods and properties that the sources read."""
    names = {name for source in sources for name in names_read(source)}
    methods = [getattr(section, name) for name in vars(section).keys() & names]
    functions = [getattr(method, "fget", method) for method in methods]
    return [textwrap.dedent(inspect.getsource(f)) for f in functions if inspect.isfunction(f)]


@pytest.mark.parametrize(
    "section", [*(field.annotation for field in Params.model_fields.values()), PhaseParams]
)
def test_every_key_is_read(section: type[Section]) -> None:
    """No key of params.yaml is without effect: a stage reads it, not the schema alone."""
    sources = [path.read_text() for path in LIBRARY + SCRIPTS if path.name != "params.py"]
    assert unread_keys(section, sources + methods_used(section, sources)) == set()


def test_every_key_is_read_can_fail() -> None:
    """A key that is only assigned, or nowhere at all, counts as unread."""

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


def stale(lock: dict[str, Any], root: Path) -> set[str]:
    """Return the files that are in git and whose md5 is not that of dvc.lock."""
    listed = subprocess.run(
        ["git", "ls-files"], cwd=root, env=environment(), capture_output=True, text=True, check=True
    )
    in_git = set(listed.stdout.splitlines())
    return {
        entry["path"]
        for stage in lock["stages"].values()
        for entry in stage.get("deps", []) + stage["outs"]
        if entry["path"] in in_git
        and hashlib.md5((root / entry["path"]).read_bytes()).hexdigest() != entry["md5"]  # noqa: S324
    }


def test_lock_is_of_these_files() -> None:
    """What is committed was made by the code that is committed: else run `make repro`."""
    assert stale(LOCK, ROOT) == set()


def test_lock_is_of_these_files_can_fail() -> None:
    """A dep and an out with another md5 are named."""
    entries = [{"path": name, "md5": "0"} for name in ("dvc.yaml", "Makefile", "data/train.npz")]
    lock = {"stages": {"a": {"outs": entries[:1]}, "b": {"deps": entries[1:], "outs": []}}}
    assert stale(lock, ROOT) == {"dvc.yaml", "Makefile"}


def test_lock_is_of_these_params() -> None:
    """The committed results are those of the committed params.yaml, which the schema accepts."""
    text = (ROOT / "params.yaml").read_text()
    assert parse_params(text)
    values = YAML(typ="safe").load(text)
    for name, stage in LOCK["stages"].items():
        locked = stage["params"]["params.yaml"]
        assert locked == {key: values[key] for key in DVC["stages"][name]["params"]}


def addresses(text: str) -> list[str]:
    """Return what names a place to install from: an address, or an option that sets one."""
    return re.findall(r"\S*://\S*|--(?:extra-)?index-url|--find-links|^-[if]\b", text, re.M)


@pytest.mark.parametrize("name", ["", "-dev", "-cluster"])
def test_requirements_name_no_registry(name: str) -> None:
    """Where packages come from is the user's choice; what they are is fixed by hashes."""
    text = (ROOT / f"requirements{name}.txt").read_text()
    assert addresses(text) == []
    pinned = re.findall(r"^[a-z0-9-]+==", text, re.M)
    assert len(pinned) > 50
    blocks = re.split(r"^(?=[a-z])", text, flags=re.M)[1:]
    assert all("--hash=sha256:" in block for block in blocks)


def test_requirements_name_no_registry_can_fail() -> None:
    """An address and each option that holds one are found."""
    text = "--index-url x\n-i x\na==1\nb @ https://example.org/b.whl\n--find-links x"
    assert addresses(text) == ["--index-url", "-i", "https://example.org/b.whl", "--find-links"]


def test_make_help() -> None:
    """`make help` lists every target that a user may call."""
    phony = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.M)
    assert phony
    done = subprocess.run(
        ["make", "help"], cwd=ROOT, env=environment(), capture_output=True, text=True, check=True
    )
    listed = re.findall(r"^make ([a-z-]+) +\S", done.stdout, re.M)
    assert sorted(listed) == sorted(phony[1].split())
