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
from ..git import ask, checkout, git, names, text
from ..pipeline.stages import is_inside
from ..processes import Locked
from ..project import restored_project, share
from .result import State, read

_NO_GIT = "[core]\n    no_scm = true\n"
_NEW = ".new"
"""What a row's folder is called while it is made; what a killed `restore` left of one goes."""


class RestoredFolder(NamedTuple):
    """A row's folder: a git worktree, and the DVC project in it."""

    root: Path
    """The main repository."""
    path: Path
    project: Path
    left_out: list[str]
    """The links of the trees that lead out of the folder."""
    lacks: list[str]
    """The files of the trees that git lacks."""
    is_new: bool

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
        self._check_out(commit)
        for link in _leave_out_links(self.path):
            if link not in self.left_out:
                self.left_out.append(link)
        if not os.path.isdir(self.project):  # noqa: PTH112  (no name is too long for it)
            raise ProjectError("it has no folder with the name of the row's DVC project")
        share(self.main, self.project)
        with chdir(self.project), restored_project(self.main) as project:
            yield read(project, chosen, commit)

    def _check_out(self, commit: str) -> None:
        """Check out a commit, and note the files that git lacks; raises `ProjectError`.

        A partial clone can lack them, if its server does not answer.
        """
        force = ["--force"] if self.is_new else []
        words = ("checkout", "-q", *force, "--detach", commit)
        try:
            git(*words, cwd=self.path)
        except ProjectError:
            if not self.is_new:
                raise
            with suppress(ProjectError):  # without the server, git goes on to the next file
                git(*words, cwd=self.path, env={"GIT_NO_LAZY_FETCH": "1"})
            if not (lacks := names("ls-files", "--deleted", "-z", cwd=self.path)):
                raise
            self.lacks.extend(lacks)


@contextmanager
def opened(root: Path, path: Path, project: str, commit: str) -> Iterator[RestoredFolder]:
    """Yield the folder of a row, whose project is in the folder `project`; make it if need be.

    A new one is at `commit`, and gets its place `path` when the block ends: it is there whole or
    not at all. Another process waits. Raises `ProjectError` if the place is somebody else's.
    """
    above = _prepared(root)
    with Locked(above):
        if os.path.lexists(path):
            _check_is_of(root, path)
            _tell_git(path)  # a kill can have come before
            yield RestoredFolder(root, path, path / project, [], [], is_new=False)
            return
        new = above / _NEW
        try:
            for gone in (new, path):  # git still lists what was deleted, or what a kill has left
                ask("worktree", "remove", "--force", "--force", str(gone), cwd=root)
            shutil.rmtree(new, ignore_errors=True)
            add = ("worktree", "add", "--force", "--force", "--no-checkout", "--detach")
            git(*add, "--", str(new), commit, cwd=root)
            admin = Path(text("rev-parse", "--absolute-git-dir", cwd=new))
            # The whole tree is wanted, also where the checkout is a sparse one.
            (admin / "info/sparse-checkout").unlink(missing_ok=True)
            folder = RestoredFolder(root, new, new / project, [], [], is_new=True)
            folder._check_out(commit)
            yield folder
            new.rename(path)  # `git worktree move` refuses one with submodules
            _tell_git(path)
        finally:
            ask("worktree", "remove", "--force", "--force", str(new), cwd=root)
            shutil.rmtree(new, ignore_errors=True)


def place(root: Path, called: str, digits: Sequence[str], run_id: str) -> Path:
    """Return where the folder of a row is, whose name ends with its digits.

    If somebody has called the row otherwise, the digits are those that its run id begins with.
    """
    name = _as_name(called)
    is_own = name.endswith(tuple(filter(None, digits)))
    return root / "restored" / (name if is_own else _as_name(f"{name} {run_id[:8]}"))


def _prepared(root: Path) -> Path:
    """Return the folder of all restored rows; make it, or what it lacks."""
    above = root / "restored"
    for folder in (above, above / _NEW):
        if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
            raise ProjectError(f"{folder}: is no folder, but a link or a file; move it away")
    above.mkdir(exist_ok=True)
    # An empty project: `dvc` above a restored one would else find the project around restored/.
    own = {above / ".gitignore": "*\n", above / ".dvc/config": _NO_GIT}
    for file, content in own.items():
        if not (file.parent.is_symlink() or os.path.lexists(file)):
            file.parent.mkdir(exist_ok=True)
            file.write_text(content)
    return above


def _check_is_of(root: Path, folder: Path) -> None:
    """Raise `ProjectError` unless a folder is a git worktree of the repository at `root`.

    One that was copied with its repository is the other one's, and git would write there.
    """
    where = ("rev-parse", "--path-format=absolute", "--git-common-dir")
    is_one = not folder.is_symlink() and (folder / ".git").is_file()
    own, cure = ask(*where, cwd=folder) if is_one else "", "move it away"
    if is_one and not own:
        cure += f", or, if the repository was moved, `git worktree repair {folder}`"
    if own != ask(*where, cwd=root) or not own:
        raise ProjectError(f"{folder}: exists, and is no git worktree of this repository; {cure}")


def _tell_git(folder: Path) -> None:
    """Tell git where a worktree is, as its manual has it for one that was moved by hand.

    `git worktree repair` would do more: in a copy of a repository, it takes the other's worktrees.
    """
    admin = text("rev-parse", "--absolute-git-dir", cwd=folder)
    Path(admin, "gitdir").write_text(f"{folder}/.git\n")


def _as_name(called: str) -> str:
    """Return a text of the store's as the name of a folder, which has at most 255 bytes."""
    name = re.sub(r"[^\w.=+-]+", "-", called).encode()[-120:]
    return name.decode(errors="ignore").strip("-.")


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
