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


def may_call(commands: Iterable[str], paths: Iterable[str], folder: Path) -> bool:
    """Return whether commands that run in a folder, with these dependencies, may call MLflow.

    In doubt they do. A command that calls it by code which dvc.yaml does not name is not found.
    """
    named = [word for command in commands for word in _WORD.findall(_without_tool(command))]
    modules = [word.replace(".", "/") for word in named if _MODULE.fullmatch(word)]
    wanted = [*named, *modules, *(f"{module}.py" for module in modules), *paths]
    if any("mlflow" in _without_tool(command) for command in commands):
        return True
    files = (file for path in dict.fromkeys(wanted) for file in _files(folder / path))
    return any(number == _MANY or _mentions(file) for number, file in enumerate(files))


def _without_tool(command: str) -> str:
    return command.replace("dvc-mlflow", "")


def _files(path: Path) -> Iterator[Path]:
    """Yield a file, or those in a folder."""
    if path.is_file():
        yield path
    elif path.is_dir() and path.name not in ("", ".", ".."):
        for top, folders, names in os.walk(path):
            folders[:] = [name for name in folders if not name.startswith(".")]
            yield from (Path(top, name) for name in names)


def _mentions(file: Path) -> bool:
    try:
        is_code = file.suffix.lower() in _CODE and file.is_file() and file.stat().st_size <= _SIZE
        return is_code and bool(_MENTIONED.search(file.read_bytes()))
    except OSError:
        return True
