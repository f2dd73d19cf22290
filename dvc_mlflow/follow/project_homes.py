"""Find a repository's projects, and the files whose change means that something is new."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from ..git import ask, checkout, glob, names
from ..place import folder_of
from .rwlock import Stamp, stamp


class ProjectHome(NamedTuple):
    """A DVC project that is followed: the main one, a nested one, or one in a git worktree."""

    folder: str
    inner: str
    """Its place in the git checkout: DVC's temporary copies have it there, too."""


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


def dvc_files(home: str) -> list[str]:
    """Return the paths of a project's dvc.yaml and dvc.lock files, wherever they are in it."""
    top = checkout(Path(home))
    folder = folder_of(Path(home), top)
    patterns = [glob(folder, f"**/{name}") for name in ("dvc.lock", "dvc.yaml")]
    return [f"{top}/{name}" for name in names("ls-files", "-co", "-z", "--", *patterns, cwd=top)]


def heads(home: str) -> list[str]:
    """Return the files that say which commit a checkout is at."""
    git = git_folder(home)
    return [f"{git}/HEAD", f"{git}/logs/HEAD"]


def refs(git: str) -> dict[str, Stamp | None]:
    """Return the stamps of what changes with a commit, an experiment or a tag."""
    paths = [
        f"{git}/{name}" for name in ("HEAD", "logs/HEAD", "packed-refs", "reftable/tables.list")
    ]
    for kind in ("heads", "remotes", "tags", "exps"):
        paths += [folder for folder, *_ in os.walk(f"{git}/refs/{kind}")]
    return {path: stamp(path) for path in paths}


def git_folder(home: str) -> Path:
    """Return git's folder of a checkout: that of a worktree or a submodule is elsewhere."""
    git = Path(checkout(Path(home)), ".git")
    with suppress(OSError):
        if git.is_file():
            return git.parent / git.read_text().removeprefix("gitdir: ").strip()
    return git
