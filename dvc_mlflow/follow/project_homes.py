"""Find a repository's projects, and the files whose change means that something is new."""

import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from ..git import ask, checkout, glob, names
from ..place import folder_of

_WRITING = 0.2  # s that DVC takes between two parts of a file
_WRITING_SLOWLY = 4.0  # s: on a loaded machine


class Stamp(NamedTuple):
    """What tells one content of a file from the next."""

    time: int
    """Of its last change, in ns since 1970."""
    size: int

    @property
    def is_whole(self) -> bool:
        """Whether nobody seems to be writing the file still."""
        return self.age > _WRITING

    @property
    def age(self) -> float:
        """The seconds since its last change; what lies ahead, as a clock was set, is old."""
        return abs(time.time_ns() - self.time) / 1e9


class ProjectHome(NamedTuple):
    """A DVC project that is followed: the main one, a nested one, or one in a git worktree."""

    folder: str
    inner: str
    """Its place in the git checkout: DVC's temporary copies have it there, too."""


def stamp(path: str) -> Stamp | None:
    """Return a file's stamp, or None if it is not there."""
    try:
        status = os.stat(path)  # noqa: PTH116  (for speed)
    except (OSError, ValueError):
        return None
    return Stamp(status.st_mtime_ns, status.st_size)


def rested(stamps: Iterable[Stamp | None]) -> bool:
    """Whether DVC, even a slow one, writes none of these files: what is wrong in one stays so."""
    return all(each.age > _WRITING_SLOWLY for each in stamps if each)


def homes(root: Path) -> Iterator[ProjectHome]:
    """Yield the project at `root` in each git worktree, and those nested in it."""
    top = checkout(root)
    inner = [os.path.relpath(root, top)]
    listed = ask("worktree", "list", "--porcelain", "-z", cwd=root).split("\0")
    trees = [each.removeprefix("worktree ") for each in listed if each.startswith("worktree ")]
    found = names("ls-files", "-co", "--exclude-standard", "-z", "--", "*.dvc/config", cwd=root)
    inner += [f"{path}/../.." for path in found]
    own = (os.path.realpath(f"{tree}/{each}") for tree in (top, *trees) for each in inner)
    for folder in dict.fromkeys(own):
        if Path(folder, ".dvc").is_dir():
            yield ProjectHome(folder, os.path.relpath(folder, checkout(Path(folder))))


def files_watched(home: str) -> list[str]:
    """Return the files that decide a project's results: each dvc.yaml and dvc.lock."""
    top = checkout(Path(home))
    patterns = [glob(folder_of(Path(home), top), f"**/{name}") for name in ("dvc.lock", "dvc.yaml")]
    return [f"{top}/{name}" for name in names("ls-files", "-co", "-z", "--", *patterns, cwd=top)]


def refs_watched(git: Path) -> dict[str, Stamp | None]:
    """Return the stamps of what changes with a commit, an experiment or a tag in git's folder."""
    paths = [
        f"{git}/{name}" for name in ("HEAD", "logs/HEAD", "packed-refs", "reftable/tables.list")
    ]
    for kind in ("heads", "remotes", "tags", "exps"):
        paths += [folder for folder, *_ in os.walk(f"{git}/refs/{kind}")]
    return {path: stamp(path) for path in paths}
