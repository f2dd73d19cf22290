"""What each `dvc` holds in a project, as DVC's own files below .dvc/tmp say.

While `dvc` makes a stage, `rwlock` names its process: it holds the stage's outputs for writing and
its deps for reading, from before DVC decides whether the stage has changed until its outputs are
committed. The repository's `lock` is free only while a command runs.
"""

import json
import os
import time
from pathlib import Path
from typing import NamedTuple

from .. import work_tree

_SETTLED = 100_000_000  # ns after which a file of that age is not half written
_DAMAGED = 10_000_000_000  # ns after which one that cannot be read says nothing any more
_MOST = 1_000_000  # bytes; an entry has some hundred


class Stamp(NamedTuple):
    """What tells one content of a file from the next."""

    time: int
    """Of its last change, in ns since 1970."""
    size: int

    @property
    def age(self) -> int:
        """How long that is ago, in ns; what lies ahead, as a clock was set back, is old, too."""
        return abs(time.time_ns() - self.time)


class Held(NamedTuple):
    """What a `dvc` holds, by absolute paths."""

    writes: frozenset[str] = frozenset()
    reads: frozenset[str] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.writes or self.reads)

    def is_part_of(self, other: "Held") -> bool:
        """Whether it still stands if its process holds `other` now.

        The next stage of the same `dvc` can read what this one has written.
        """
        return self.writes <= other.writes if self.writes else self.reads <= other.reads


class RWLock:
    """A project's rwlock, read again when it has changed."""

    def __init__(self, home: str) -> None:
        self._home, self._path = home, f"{home}/.dvc/tmp/rwlock"
        self.stamp: Stamp | None = None
        """The file's, when it was read last."""
        self.held: dict[int, Held] = {}
        """By process id."""

    def read(self) -> bool:
        """Read what is held; return whether that is so now.

        While the file is half written, it is what could be read last. Raises
        `work_tree.RefusedError`, and then nothing is held.
        """
        now = stamp(self._path)
        if now is None:
            self.stamp, self.held = None, {}
            return True
        if now == self.stamp and now.age > _SETTLED:
            return True
        writes: dict[int, set[str]] = {}
        reads: dict[int, set[str]] = {}
        try:
            content = json.loads(work_tree.read(self._path, self._home, of_dvc=True, most=_MOST))
            for path, info in content.get("write", {}).items():
                writes.setdefault(int(info["pid"]), set()).add(path)
            for path, infos in content.get("read", {}).items():
                for info in infos:
                    reads.setdefault(int(info["pid"]), set()).add(path)
        except work_tree.RefusedError:
            self.held = {}
            raise
        except Exception:  # of whatever else anybody has written there
            if now.age < _DAMAGED or stamp(self._path) != now:
                return False
            writes, reads = {}, {}
        self.stamp = now
        pids = writes.keys() | reads.keys()
        self.held = {
            pid: Held(frozenset(writes.get(pid, ())), frozenset(reads.get(pid, ()))) for pid in pids
        }
        return True


def stamp(path: str) -> Stamp | None:
    """Return a file's stamp, or None if it is not there."""
    try:
        found = os.stat(path)  # noqa: PTH116  (for speed)
    except (OSError, ValueError):
        return None
    return Stamp(found.st_mtime_ns, found.st_size)


def lock_stamp(home: str) -> Stamp | None:
    """Return the stamp of a project's lock, which each `dvc` writes when it takes it."""
    return stamp(f"{home}/.dvc/tmp/lock")


def last_dvc(home: str) -> int:
    """Return the process id of the `dvc` that has locked a project last, or 0.

    A stage with neither deps nor outputs has no entry in rwlock. Raises `work_tree.RefusedError`.
    """
    try:
        text = work_tree.read(f"{home}/.dvc/tmp/lock", home, of_dvc=True, most=_MOST)
    except FileNotFoundError:
        return 0
    return int(text[:9]) if text.strip().isdigit() else 0


def holds_lock(home: str, pid: int) -> bool:
    """Whether a `dvc` holds its project's lock; always False without Linux's /proc/locks."""
    try:
        found = Path(f"{home}/.dvc/tmp/lock").stat()
    except OSError:
        return False
    device = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}:{found.st_ino}"
    try:
        lines = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
    except OSError:
        return False
    return any(line[4:6] == [f"{pid}", device] for line in lines if line[1:2] != ["->"])
