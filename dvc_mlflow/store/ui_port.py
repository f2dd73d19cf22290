"""Which `dvc-mlflow ui` serves a store from this clone, and on which port."""

import json
from pathlib import Path

from .. import own_files, processes
from ..errors import masked

HOST = "127.0.0.1"
_AT = Path(own_files.FOLDER, "ui")


def note(root: Path, address: str, port: int) -> None:
    """Remember that this process serves the store at an address; raises `OSError`."""
    known = {**processes.tags(root), "store": masked(address), "port": port}
    own_files.write(f"{root / _AT}", json.dumps(known).encode())


def port(root: Path, address: str) -> int:
    """Return the port on which a running `ui` serves a store, or 0 if none does."""
    try:
        known = json.loads(own_files.read(f"{root / _AT}"))
        is_it = known["store"] == masked(address) and processes.runs_here(known)
        return int(known["port"]) if is_it else 0
    except (OSError, ValueError, LookupError, TypeError):
        return 0
