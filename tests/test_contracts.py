"""Which part of the code may import, load, mention and write what: the table in CONTRIBUTING.md."""

import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from support.clone import ROOT, environment
from support.imports import LIBRARY, SCRIPTS, STAGES, imported_names

TOOL = ROOT / "dvc_mlflow"
NAMES = {path.stem for path in SCRIPTS}


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
    """An import is found wherever it appears and however it is written."""
    lines = ["import {}", "import {} as k", "from {} import x", "def f():\n    from {}.y import x"]
    sneaky = {tmp_path / f"{i}.py": line.format("a.b") for i, line in enumerate(lines)}
    for path, text in sneaky.items():
        path.write_text(text)
    (tmp_path / "other.py").write_text("import a.bc\nfrom a import c")
    assert importers("a.b", tmp_path.glob("*.py")) == {*sneaky}


def test_relative_imports_are_found() -> None:
    """A relative import is found, too: follow/live_row.py has `from ..store.store import`."""
    assert TOOL / "follow/live_row.py" in importers("dvc_mlflow.store.store", modules("dvc_mlflow"))


def test_the_tool_knows_no_science() -> None:
    """The tool never mentions these words: it knows a project only through DVC.

    One module has the words by which metrics of any project are called, one the endings of files
    with models, and the manual names some.
    """
    words = re.compile("lstm|keras|tensorflow|one-hot|epoch|accuracy", re.I)
    texts = [path for path in TOOL.rglob("*") if path.suffix in {".py", ".md"}]
    assert len(texts) > 50
    found = {path for path in texts if words.search(path.read_text())}
    own = ("pipeline/measures.py", "pipeline/promotion.py", "MANUAL.md")
    assert found == {TOOL / name for name in own}


def test_one_importer() -> None:
    """Only these modules import these packages, so a package is replaced in one place."""
    allowed = {
        "keras": {"learning/backend.py"},
        "tensorflow": {"learning/backend.py"},
        "voluptuous": {"task/artifacts.py", "task/params.py", "task/schema.py"},
        "yaml": {"task/params_file.py"},
        "mlflow": {"vanilla_lstm/serving.py"},
        "ruamel": set(),
        "pydantic": set(),  # it would take 0.07 s of each stage
    }
    found = {package: importers(package, LIBRARY + SCRIPTS) for package in allowed}
    assert {
        package: {f"{path.parent.name}/{path.name}" for path in paths}
        for package, paths in found.items()
    } == allowed


def test_where_files_are_written() -> None:
    """Only two modules write the files that DVC tracks; they report errors in one line."""
    writing = re.compile(r"\.(write_text|write_bytes|open\(.w|save\()|\bopen\(")
    found = {
        f"{path.parent.name}/{path.name}"
        for path in LIBRARY + SCRIPTS
        if writing.search(path.read_text())
    }
    # backend.py writes to /dev/null, and params_file.py reads params.yaml.
    written = {"task/artifacts.py", "learning/model_file.py"}
    assert found == written | {"learning/backend.py", "task/params_file.py"}


def heavy_modules_of(script: str, folder: Path) -> set[str]:
    """Run `script` in `folder` and return the heavy packages that it has loaded."""
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
    """Generating data loads neither TensorFlow nor MLflow, so it takes a fraction of a second."""
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    assert heavy_modules_of(str(STAGES / "generate_data.py"), tmp_path) == set()


def test_generating_loads_nothing_heavy_can_fail(tmp_path: Path) -> None:
    """A heavy package that a script loads is found."""
    (tmp_path / "mlflow.py").touch()
    (tmp_path / "script.py").write_text("def f():\n    import mlflow\nf()\nprint('done')")
    assert heavy_modules_of("script.py", tmp_path) == {"mlflow"}
