"""Import nothing from the user's checkout, which may hold a yaml.py or a folder mlflow/.

This module itself imports only what Python has already imported.
"""

# ruff: noqa: PTH110, PTH120  (pathlib imports a dozen modules)
import os
import sys


def leave_out_checkout() -> None:
    """Remove the working directory, and what PYTHONPATH names in its checkout, from sys.path."""
    inside = _inside()
    sys.path[:] = [entry for entry in sys.path if os.path.realpath(entry) not in inside]


def python_path() -> str:
    """Return PYTHONPATH without what it names in the checkout."""
    inside = _inside()
    return os.pathsep.join(entry for entry in _entries() if os.path.realpath(entry) not in inside)


def _entries() -> list[str]:
    return os.environ.get("PYTHONPATH", "").split(os.pathsep)


def _inside() -> set[str]:
    here = os.path.realpath("")
    top = f"{_checkout(here)}{os.sep}"
    return {here} | {
        path for path in map(os.path.realpath, _entries()) if f"{path}{os.sep}".startswith(top)
    }


def _checkout(here: str) -> str:
    parents = [here]
    while (above := os.path.dirname(parents[-1])) != parents[-1]:
        parents.append(above)
    marked = (
        path for mark in (".git", ".dvc") for path in parents if os.path.exists(f"{path}/{mark}")
    )
    return next(marked, here)
