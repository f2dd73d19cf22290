"""What each `dvc` holds in a project, as DVC's own file `.dvc/tmp/rwlock` says.

While `dvc` makes a stage, the file names its process: it holds the stage's outputs for writing and
its deps for reading, from before DVC decides whether the stage has changed until its outputs are
committed. DVC writes the file in place.
"""

import json
import time
from contextlib import suppress
from pathlib import Path

from .. import work_tree

_MOST = 1_000_000  # bytes; an entry has some hundred
_DAMAGED = 10.0  # s after which a file that cannot be read says nothing any more


def held_by(home: str | Path) -> dict[int, frozenset[str]] | None:
    """Return the absolute paths that each process holds in a project, by the process's id.

    They are those that its stage writes, or those that it reads if it writes none. Return None
    while DVC is writing the file. Raises `work_tree.RefusedError`.
    """
    path = Path(home, ".dvc/tmp/rwlock")
    writes: dict[int, set[str]] = {}
    reads: dict[int, set[str]] = {}
    try:
        content = json.loads(work_tree.read(path, home, of_dvc=True, most=_MOST))
        for name, entry in content.get("write", {}).items():
            writes.setdefault(int(entry["pid"]), set()).add(name)
        for name, entries in content.get("read", {}).items():
            for entry in entries:
                reads.setdefault(int(entry["pid"]), set()).add(name)
    except work_tree.RefusedError:
        raise
    except Exception:  # half of it, or whatever anybody has written there
        with suppress(OSError):
            if abs(time.time() - path.stat().st_mtime) < _DAMAGED:
                return None
        return {}
    return {pid: frozenset(own) for pid, own in (reads | writes).items()}


def last_dvc(home: str | Path) -> int:
    """Return the process id of the `dvc` that has locked a project last, or 0."""
    try:
        text = work_tree.read(f"{home}/.dvc/tmp/lock", home, of_dvc=True, most=_MOST)
    except OSError:
        return 0
    return int(text[:9]) if text.strip().isdigit() else 0
