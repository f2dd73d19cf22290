"""The folders of restored rows: each is a git worktree below restored/, with a DVC project in it.

Anybody can have made a row's name and its commits: neither leads out of the folder.
"""

import os
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import chdir, contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from ..errors import ProjectError
from ..git import checkout, git
from ..pipeline.stages import is_inside
from ..project import restored_project, share
from .result import State, read

_UNFINISHED = "is not finished"
_NO_GIT = "[core]\n    no_scm = true\n"


class Folder(NamedTuple):
    """A row's folder: a git worktree, and the DVC project in it."""

    root: Path
    """The main repository."""
    path: Path
    project: Path
    left_out: list[str]
    """The links of the trees that lead out of the folder."""
    is_new: bool
    """Whether nobody can have edited it: it is new, or `restore` was killed while it made it."""

    @property
    def main(self) -> Path:
        """The same DVC project in the main repository, or its outermost one."""
        same = checkout(self.root) / self.project.relative_to(self.path)
        return same if (same / ".dvc").is_dir() else self.root

    @contextmanager
    def at(self, commit: str, chosen: Sequence[str]) -> Iterator[State]:
        """Check out a commit, and yield its results as `record` reads them.

        Raises `ProjectError`.
        """
        force = ["--force"] * self.is_new
        git("checkout", "-q", *force, "--detach", commit, cwd=self.path)
        for link in _leave_out_links(self.path):
            if link not in self.left_out:
                self.left_out.append(link)
        if not os.path.isdir(self.project):  # noqa: PTH112  (no name is too long for it)
            raise ProjectError("it has no folder with the name of the row's DVC project")
        share(self.main, self.project)
        with chdir(self.project), restored_project(self.main) as project:
            yield read(project, chosen, commit)


def prepared(root: Path) -> Path:
    """Return the folder of all restored rows; make it, or what it lacks."""
    above = root / "restored"
    if above.is_symlink() or (above.exists() and not above.is_dir()):
        raise ProjectError(f"{above}: is no folder, but a link or a file; move it away")
    above.mkdir(exist_ok=True)
    # An empty project: `dvc` above a restored one would else find the project around restored/.
    own = {".gitignore": "*\n", ".dvc/config": _NO_GIT}
    for file, text in ((above / name, text) for name, text in own.items()):
        if not (file.parent.is_symlink() or os.path.lexists(file)):
            file.parent.mkdir(exist_ok=True)
            file.write_text(text)
    return above


def place(root: Path, run_id: str, called: str) -> tuple[Path, bool, bool]:
    """Return the row's folder, whether it exists, and whether nobody can have edited it.

    Two rows can have the same name.
    """
    above, own = root / "restored", _as_name(run_id)
    name = _as_name(called) or own
    for folder in (above / name, above / f"{name}-{own[:8]}"):
        if not os.path.lexists(folder):
            return folder, False, True
        with suppress(ProjectError, OSError):
            if not folder.is_symlink():
                if all(path.name == ".git" and path.is_file() for path in folder.iterdir()):
                    shutil.rmtree(folder)  # a killed `restore` has left it
                    return folder, False, True
                _attach(root, folder)
                marked, _, unfinished = mark(folder).read_text().partition(" ")
                if marked == run_id:
                    return folder, True, bool(unfinished)
    raise ProjectError(f"{folder}: exists, but is not this row's folder; move it away")


def _as_name(text: str) -> str:
    """Return a text of the store's as the name of a folder, which has at most 255 bytes."""
    name = re.sub(r"[^\w.=+-]+", "-", text).strip("-.")
    return name.encode()[:120].decode(errors="ignore")


def make(root: Path, folder: Path, run_id: str, commit: str) -> None:
    """Make the row's folder at a commit, without files, whole or not at all."""
    # Forced, because git still lists a folder that was deleted, or that a kill has left.
    add = ("worktree", "add", "--force", "--force", "--no-checkout", "--detach")
    try:
        git(*add, "--", str(folder), commit, cwd=root)
        mark(folder).write_text(f"{run_id} {_UNFINISHED}")
    except BaseException:
        with suppress(ProjectError):
            git("worktree", "remove", "--force", str(folder), cwd=root)
        raise


def _leave_out_links(folder: Path) -> Iterator[str]:
    """Remove the links of a checkout that lead out of it, or to what git and DVC keep there.

    Anybody can have made the commit, and DVC would read and write through them.
    """
    real = os.path.realpath(folder)
    for entry in os.fsdecode(git("ls-files", "-s", "-z", cwd=folder)).split("\0"):
        mode, _, path = entry.partition(" ")[0], *entry.partition("\t")[1:]
        if mode != "120000" or not (folder / path).is_symlink():
            continue
        leads_to = os.path.relpath(os.path.realpath(folder / path), real)
        if not is_inside(leads_to) or {".git", ".dvc"} & {*leads_to.split("/")}:
            (folder / path).unlink()
            yield path


def _attach(root: Path, folder: Path) -> None:
    """Let a folder and its repository find each other after both were moved or copied.

    A copied folder names the repository that it was copied from, and git would write there.
    """
    common = git("rev-parse", "--path-format=absolute", "--git-common-dir", cwd=root)
    named = Path((folder / ".git").read_text().strip()).name
    own = Path(os.fsdecode(common).strip(), "worktrees", named)
    if own.is_dir() and (folder / ".git").read_text() != f"gitdir: {own}\n":
        (folder / ".git").write_text(f"gitdir: {own}\n")
        git("worktree", "repair", str(folder), cwd=root)


def mark(folder: Path) -> Path:
    """Return the file in git's own directory that names the row of a folder.

    Until the row is restored once, it also says that it is not finished.
    """
    return folder / os.fsdecode(git("rev-parse", "--git-path", "restored", cwd=folder)).strip()
