"""`record` asks a follower by a file, and waits until the follower has removed it."""

import os
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from ..errors import ProjectError
from ..place import own_folder
from .follower_lock import FollowerLock

_FOLDER = "asked"
_PATIENCE, _MOMENT = 30.0, 0.05  # s


class Questions:
    """The questions of a repository's other processes, as its follower sees them."""

    def __init__(self, root: Path) -> None:
        self._folder = f"{own_folder(root) / _FOLDER}"
        self._first: dict[str, int] = {}
        """How often the follower had looked when it found each."""

    def since(self, count: int) -> list[str]:
        """Return those that were there before the last whole look, of which this is the number."""
        try:
            there = os.listdir(self._folder)  # noqa: PTH208  (for speed)
        except OSError:
            there = []
        self._first = {name: self._first.get(name, count) for name in there}
        return [name for name, first in self._first.items() if count >= first + 2]

    def answer(self, names: Sequence[str]) -> None:
        """Tell those who have asked that all is done."""
        for name in names:
            with suppress(OSError):
                Path(self._folder, name).unlink()


def wait_for_follower(root: Path) -> str:
    """Let a follower of the repository at `root` do what there is to do, if there is one.

    Return why that is not known to be done, or "". Raises `OSError`.
    """
    try:
        opened = FollowerLock(root)
    except ProjectError:  # where its lock cannot be, there is no follower
        return ""
    with opened as lock:
        if not (owner := lock.owner):
            return ""
        question = own_folder(root) / _FOLDER / f"{os.getpid()}"
        question.parent.mkdir(exist_ok=True)
        question.touch()
        try:
            deadline = time.monotonic() + _PATIENCE
            while question.exists() and lock.owner:
                if time.monotonic() > deadline:
                    return f"process {owner}, which follows this repository, does not answer"
                time.sleep(_MOMENT)
        finally:
            question.unlink(missing_ok=True)
    return ""
