"""Which first-party modules a stage imports, computed from the source."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
STAGES = ROOT / "stages"


def imported_names(source: str) -> Iterator[str]:
    """Yield every module that `source` imports, wherever in it the import stands."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def closure(script: Path, root: Path = STAGES) -> set[Path]:
    """Return `script` and all modules below `root` that it imports, directly or not."""
    found: set[Path] = set()
    todo = [script]
    while todo:
        path = todo.pop()
        if path in found:
            continue
        found.add(path)
        for name in imported_names(path.read_text()):
            module = root.joinpath(*name.split("."))
            candidates = [module.with_suffix(".py"), module / "__init__.py"]
            todo += [candidate for candidate in candidates if candidate.is_file()]
    return found
