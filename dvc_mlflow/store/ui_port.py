"""Which `dvc-mlflow ui` serves a store from this clone, and on which port."""

import json
from pathlib import Path

from .. import processes
from ..errors import ProjectError, masked
from ..place import own_folder

HOST = "127.0.0.1"
_FILE = "ui"


def note(root: Path, address: str, port: int) -> None:
    """Remember that this process serves a store; raises `OSError` and `ProjectError`."""
    known = {**processes.process_tags(root), "store": masked(address), "port": port}
    (own_folder(root) / _FILE).write_text(json.dumps(known))


def port(root: Path, address: str) -> int:
    """Return the port on which a running `ui` serves a store, or 0 if none does."""
    try:
        known = json.loads((own_folder(root) / _FILE).read_text())
        is_it = known["store"] == masked(address) and processes.runs_here(known)
        return int(known["port"]) if is_it else 0
    except (OSError, ProjectError, ValueError, LookupError, TypeError):
        return 0
