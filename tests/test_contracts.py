"""What the code promises about itself: which module imports which, and what dvc.yaml lists."""

import ast
import hashlib
import inspect
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from clone import ROOT, environment
from imports import STAGES, covering, imported_names
from vanilla_lstm.task.params import parse_params
from vanilla_lstm.task.schema import Params, PhaseParams, Section

LIBRARY = sorted(path for path in STAGES.rglob("*.py") if path.parent != STAGES)
SCRIPTS = sorted(STAGES.glob("*.py"))
TOOL = ROOT / "dvc_mlflow"
NAMES = {path.stem for path in SCRIPTS}
DVC: dict[str, Any] = YAML(typ="safe").load(ROOT / "dvc.yaml")
LOCK: dict[str, Any] = YAML(typ="safe").load(ROOT / "dvc.lock")


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


# Each part with the packages that nothing in it may import.
SCIENCE = ["vanilla_lstm", "keras", "tensorflow", "numpy", "pydantic"]
RULES = {
    "dvc_mlflow": SCIENCE,
    "vanilla_lstm/task": ["mlflow", "vanilla_lstm.learning", "keras", "tensorflow"],
    "vanilla_lstm/learning": ["mlflow", "vanilla_lstm.serving"],
    "vanilla_lstm": ["dvc_mlflow", *sorted(NAMES)],
    **{f"{name}.py": ["dvc_mlflow", "mlflow", "vanilla_lstm.serving"] for name in sorted(NAMES)},
}


@pytest.mark.parametrize(("part", "package"), [(r, p) for r, ps in RULES.items() for p in ps])
def test_what_a_part_never_imports(part: str, package: str) -> None:
    """The pipeline imports neither MLflow nor the tool, and the tool no science."""
    assert modules(part)
    assert importers(package, modules(part)) == set()


@pytest.mark.parametrize(
    "line",
    ["import {}", "import {} as k", "from {} import x", "def f():\n    from {}.y import x"],
)
@pytest.mark.parametrize(("part", "package"), [(r, p) for r, ps in RULES.items() for p in ps])
def test_what_a_part_never_imports_can_fail(
    part: str, package: str, line: str, tmp_path: Path
) -> None:
    """An import is found wherever it appears and however it is written."""
    sneaky = tmp_path / "sneaky.py"
    sneaky.write_text(line.format(package))
    assert importers(package, [*modules(part), sneaky]) == {sneaky}


def test_relative_imports_are_found() -> None:
    """An import that is written relative to its package is found as well."""
    sneaky = modules("dvc_mlflow")[0].with_name("sneaky.py")
    sneaky.write_text("from . import store\n")
    try:
        assert sneaky in importers("dvc_mlflow.store", modules("dvc_mlflow"))
    finally:
        sneaky.unlink()


@pytest.mark.parametrize("word", ["lstm", "keras", "tensorflow", "digit", "epoch", "accuracy"])
def test_the_tool_knows_no_science(word: str) -> None:
    """The tool does not even mention these words: all that it knows of a project is DVC's."""
    for path in TOOL.rglob("*"):
        if path.suffix in {".py", ".md"}:
            assert word not in path.read_text().lower(), path


@pytest.mark.parametrize(
    ("package", "allowed"),
    [
        ("keras", {"learning/backend.py"}),
        ("tensorflow", {"learning/backend.py"}),
        ("pydantic", {"task/params.py", "task/schema.py"}),
        ("yaml", {"task/params_file.py"}),
        ("mlflow", {"vanilla_lstm/serving.py"}),
        ("ruamel", set()),
    ],
)
def test_one_importer(package: str, allowed: set[str]) -> None:
    """Each of these packages is imported in one place at most, so it can be replaced there."""
    found = importers(package, LIBRARY + SCRIPTS)
    assert {f"{path.parent.name}/{path.name}" for path in found} == allowed


def test_where_files_are_written() -> None:
    """What DVC tracks is written in two modules, which report what goes wrong in one line."""
    writing = re.compile(r"\.(write_text|write_bytes|open\(.w|save\()|\bopen\(")
    found = {
        f"{path.parent.name}/{path.name}"
        for path in LIBRARY + SCRIPTS
        if writing.search(path.read_text())
    }
    # The last reads params.yaml, and the one before it writes to /dev/null.
    written = {"task/artifacts.py", "learning/model_file.py"}
    assert found == written | {"learning/backend.py", "task/params_file.py"}


def heavy_modules_of(script: str, folder: Path) -> set[str]:
    """Return the heavy packages that are loaded after `script` has run in `folder`."""
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
    """Generating data takes a fraction of a second, without TensorFlow and MLflow."""
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    assert heavy_modules_of(str(STAGES / "generate_data.py"), tmp_path) == set()


def test_generating_loads_nothing_heavy_can_fail(tmp_path: Path) -> None:
    """A heavy package that a script loads is found."""
    (tmp_path / "mlflow.py").touch()
    (tmp_path / "script.py").write_text("def f():\n    import mlflow\nf()\nprint('done')")
    assert heavy_modules_of("script.py", tmp_path) == {"mlflow"}


def script_of(stage: dict[str, Any]) -> Path:
    """Return the script that a stage of dvc.yaml runs."""
    start, _, rest = stage["cmd"].partition("python ")
    assert start in ("exec ", "exec dvc-mlflow run ")
    return ROOT / str(rest.split()[0])


@pytest.mark.parametrize("name", DVC["stages"])
def test_deps_are_what_decides_the_bytes(name: str) -> None:
    """A stage re-runs when code that can change its outputs changes, and for no other code."""
    stage = DVC["stages"][name]
    data = {dep for dep in stage["deps"] if dep.startswith("data/")}
    assert {ROOT / dep for dep in stage["deps"] if dep not in data} == covering(script_of(stage))
    assert data == {
        "train": {"data/train.npz"},
        "evaluate": {"data/test.npz", "data/model.keras"},
    }.get(name, set())
    assert len(stage["deps"]) <= 6


def test_covering_can_fail(tmp_path: Path) -> None:
    """Indirect imports count, as do those in functions and packages; a folder counts as a whole."""
    script = tmp_path / "script.py"
    script.write_text("def f():\n    from vanilla_lstm.learning.batches import batches\n")
    assert covering(script) == {script, STAGES / "vanilla_lstm" / "learning"}
    script.write_text("from vanilla_lstm import serving\n")
    assert covering(script) == {
        script,
        *(STAGES / "vanilla_lstm" / name for name in ("task", "learning")),
    }


def sections_read(source: str, arguments: list[str]) -> set[str]:
    """Return the sections that a stage's script reads: the X of every `params.X` in it.

    In a `match` on its arguments, only the case of `arguments` counts. `params` may be used in no
    other way, so nothing else can read a section.
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
    """Yield every attribute that is read and every argument that a function takes."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
            yield node.attr
        elif isinstance(node, ast.arg):
            yield node.arg


def unread_keys(section: type[Section], sources: list[str]) -> set[str]:
    """Return the keys of a section that none of the sources reads."""
    return section.model_fields.keys() - {n for source in sources for n in names_read(source)}


def methods_used(section: type[Section], sources: list[str]) -> list[str]:
    """Return the source of those methods and properties of a section that the sources use."""
    names = {name for source in sources for name in names_read(source)}
    methods = [getattr(section, name) for name in vars(section).keys() & names]
    functions = [getattr(method, "fget", method) for method in methods]
    return [textwrap.dedent(inspect.getsource(f)) for f in functions if inspect.isfunction(f)]


@pytest.mark.parametrize(
    "section", [*(field.annotation for field in Params.model_fields.values()), PhaseParams]
)
def test_every_key_is_read(section: type[Section]) -> None:
    """Every key of params.yaml has an effect: some code besides the schema reads it."""
    schema = STAGES / "vanilla_lstm" / "task" / "schema.py"
    sources = [path.read_text() for path in LIBRARY + SCRIPTS if path != schema]
    assert unread_keys(section, sources + methods_used(section, sources)) == set()


def test_every_key_is_read_can_fail() -> None:
    """A key that is only assigned, or never appears, counts as unread."""

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
    """Return the files in git whose md5 is not the one in dvc.lock."""
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


@pytest.mark.usefixtures("as_committed")
def test_lock_is_of_these_files() -> None:
    """The committed code made the committed results: if not, run `make repro`."""
    assert stale(LOCK, ROOT) == set()


def test_lock_is_of_these_files_can_fail() -> None:
    """A dep and an output with another md5 are found."""
    entries = [{"path": name, "md5": "0"} for name in ("dvc.yaml", "Makefile", "data/train.npz")]
    lock = {"stages": {"a": {"outs": entries[:1]}, "b": {"deps": entries[1:], "outs": []}}}
    assert stale(lock, ROOT) == {"dvc.yaml", "Makefile"}


@pytest.mark.usefixtures("as_committed")
def test_lock_is_of_these_params() -> None:
    """The committed results are those of the committed params.yaml, which the schema accepts."""
    text = (ROOT / "params.yaml").read_text()
    assert parse_params(text)
    values = YAML(typ="safe").load(text)
    for name, stage in LOCK["stages"].items():
        locked = stage["params"]["params.yaml"]
        assert locked == {key: values[key] for key in DVC["stages"][name]["params"]}


def addresses(text: str) -> list[str]:
    """Return everything that names a place to install from: addresses, and options that set one."""
    return re.findall(r"\S*://\S*|--(?:extra-)?index-url|--find-links|^-[if]\b", text, re.M)


@pytest.mark.parametrize("name", ["", "-dev", "-cluster"])
def test_requirements_name_no_registry(name: str) -> None:
    """The user chooses where packages come from; hashes fix what they are."""
    text = (ROOT / f"requirements{name}.txt").read_text()
    assert addresses(text) == []
    pinned = re.findall(r"^[a-z0-9-]+==", text, re.M)
    assert len(pinned) > 50
    blocks = re.split(r"^(?=[a-z])", text, flags=re.M)[1:]
    assert all("--hash=sha256:" in block for block in blocks)


def test_requirements_name_no_registry_can_fail() -> None:
    """An address is found, and so is each option that sets one."""
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
