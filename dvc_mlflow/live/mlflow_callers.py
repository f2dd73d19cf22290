"""Whether a stage's command may call MLflow: the code that it names and depends on mentions it."""

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

_MENTIONED = re.compile(b"mlflow|MLFlow|MLFLOW")  # not "MLflow", as prose has it
_CODE = (".py", ".ipynb", ".r", ".jl", ".sh", ".toml", ".cfg", ".yaml", ".yml", "")
_WORD, _MODULE = re.compile(r"[\w./-]+"), re.compile(r"\w+(\.\w+)*")
_SIZE = 2**20  # bytes: code is smaller
_MANY = 10_000  # files: to look at more takes as long as to wait


def may_call(commands: Iterable[str], paths: Iterable[str], folder: Path, root: Path) -> bool:
    """Return whether commands that run in a folder, with these dependencies, may call MLflow.

    Only code of the project in `root` is read. A command that calls MLflow by other code, or by
    code that dvc.yaml does not name, is not found.
    """
    named = [word for command in commands for word in _WORD.findall(_without_tool(command))]
    modules = [word.replace(".", "/") for word in named if _MODULE.fullmatch(word)]
    wanted = [*named, *modules, *(f"{module}.py" for module in modules), *paths]
    if any("mlflow" in _without_tool(command) for command in commands):
        return True
    top = f"{os.path.realpath(root)}/"
    own = [folder / path for path in dict.fromkeys(wanted) if _is_below(top, folder / path)]
    files = (file for path in own for file in _files(path))
    return any(
        n == _MANY or (_is_below(top, file) and _mentions(file)) for n, file in enumerate(files)
    )


def _is_below(top: str, path: Path) -> bool:
    """Whether a path leads into a folder, also by links; devices and kernel logs are elsewhere."""
    return f"{os.path.realpath(path)}/".startswith(top)


def _without_tool(command: str) -> str:
    return command.replace("dvc-mlflow", "")


def _files(path: Path) -> Iterator[Path]:
    """Yield a file, or those in a folder."""
    if path.is_file():
        yield path
    elif path.is_dir():
        for top, folders, names in os.walk(path):
            folders[:] = [name for name in folders if not name.startswith(".")]
            yield from (Path(top, name) for name in names)


def _mentions(file: Path) -> bool:
    try:
        is_code = file.suffix.lower() in _CODE and file.is_file() and file.stat().st_size <= _SIZE
        return is_code and bool(_MENTIONED.search(file.read_bytes()))
    except OSError:
        return True
