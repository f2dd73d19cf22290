"""The modules of the pipeline, and which of them a script imports, found in the source."""

import ast
from collections.abc import Sequence
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
STAGES = ROOT / "stages"
FOLDERS = [STAGES / name for name in ("vanilla_lstm/task", "vanilla_lstm/learning")]
"""The folders whose code can change an output; a stage depends on a folder as a whole."""
SCRIPTS = sorted(STAGES.glob("*.py"))
"""The scripts that are the stages."""


@cache
def imported_names(path: Path, root: Path | None = None) -> frozenset[str]:
    """Return the name of every module that a file imports, at its top or in a function.

    Names are relative to `root`, by default that of the repository or of its stages.
    """
    root = root or (STAGES if STAGES in path.parents else ROOT)
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = path.parents[node.level - 1].parts[len(root.parts) :] if node.level else ()
            name = ".".join([*above, *([node.module] if node.module else [])])
            found |= {name, *(f"{name}.{alias.name}" for alias in node.names)}
    return frozenset(found)


def imports(path: Path, roots: Sequence[Path] = (STAGES,)) -> set[Path]:
    """Return the first-party modules that a file imports directly."""
    found = set()
    for name in imported_names(path):
        for root in roots:
            module = root.joinpath(*name.split("."))
            found |= {p for p in (module.with_suffix(".py"), module / "__init__.py") if p.is_file()}
    return found


def closure(script: Path, roots: Sequence[Path] = (STAGES,)) -> set[Path]:
    """Return `script` and all modules below `roots` that it imports, directly or indirectly."""
    found: set[Path] = set()
    todo = [script]
    while todo:
        path = todo.pop()
        if path not in found:
            found.add(path)
            todo += imports(path, roots)
    return found


def covering(script: Path, roots: Sequence[Path] = (STAGES,)) -> set[Path]:
    """Return the deps that cover the script's code: whole folders, and modules beside the script.

    No other code, such as serving or the tool, changes an output.
    """
    modules = closure(script, roots)
    folders = {folder for folder in FOLDERS if any(folder in path.parents for path in modules)}
    return folders | {path for path in modules if path.parent == script.parent}
