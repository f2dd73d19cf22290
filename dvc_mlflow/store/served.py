"""Which `dvc-mlflow ui` serves a store from this clone, and on which port."""

import hashlib
import json
import time
from collections.abc import Callable
from http.client import HTTPConnection, HTTPException
from pathlib import Path

from .. import own_files, processes

HOST = "127.0.0.1"
_AT = Path(own_files.FOLDER, "ui")
_STARTING = 120  # seconds: a server migrates an old store first


def note(root: Path, address: str, port: int) -> None:
    """Remember that this process serves the store at an address; raises `OSError`."""
    file = root / _AT
    known = {**processes.tags(root), "store": _digest(address), "port": port}
    own_files.write(f"{file}", json.dumps(known).encode())


def port(root: Path, address: str) -> int:
    """Return the port on which a running `ui` serves a store, or 0 if none does."""
    try:
        known = json.loads(own_files.read(f"{root / _AT}"))
        is_it = known["store"] == _digest(address) and processes.runs_here(known)
        return int(known["port"]) if is_it else 0
    except (OSError, ValueError, LookupError, TypeError):
        return 0


def answers(at: int, root: Path, address: str, is_over: Callable[[], bool] = lambda: False) -> bool:
    """Wait until a noted `ui` answers; return False if it ends before, or hangs."""
    deadline = time.monotonic() + _STARTING
    while port(root, address) == at and time.monotonic() < deadline and not is_over():
        connection = HTTPConnection(HOST, at, timeout=2)
        try:
            connection.request("GET", "/health")
            if connection.getresponse().status == 200:
                return True
        except (OSError, HTTPException):
            pass
        finally:
            connection.close()
        time.sleep(0.1)
    return False


def _digest(address: str) -> str:
    """Return what stands for an address, which can have a password in it."""
    return hashlib.md5(address.encode(), usedforsecurity=False).hexdigest()
