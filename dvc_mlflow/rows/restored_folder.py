"""The folders of restored rows: each is a git worktree below restored/, with a DVC project in it.

Anybody can have made a row's name and its commits: neither leads out of the folder.
"""

import os
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from ..errors import ProjectError
from ..git import NO_SERVER, ask, checkout, git, names, text
from ..pipeline.stages import leads_out
from ..place import why_not_own
from ..processes import Locked

_OWN = {".gitignore": "*\n", ".dvc/config": "[core]\n    no_scm = true\n"}
"""An empty project: `dvc` above a restored one would else find the project around restored/."""


class RestoredFolder(NamedTuple):
    """A row's folder: a git worktree, and the DVC project in it."""

    path: Path
    project: Path
    main: Path
    """The same DVC project in the main repository, or its outermost one."""
    is_new: bool

    def check_out(self, commit: str) -> tuple[list[str], list[str]]:
        """Check out a commit; return the files that git lacks, and the links that are left out.

        A partial clone lacks files if its server does not answer. Links lead out of the folder, or
        to what git and DVC keep there. Raises `ProjectError`.
        """
        force = ["--force"] if self.is_new else []
        words, lacks = ("checkout", "-q", *force, "--detach", commit), list[str]()
        try:
            git(*words, cwd=self.path)
        except ProjectError:
            with suppress(ProjectError):  # without the server, git goes on to the next file
                git(*words, cwd=self.path, env=NO_SERVER)
            lacks = names("ls-files", "--deleted", "-z", cwd=self.path)
            if not (self.is_new and lacks):
                raise
        return lacks, [*_leave_out_links(self.path)]


@contextmanager
def made(root: Path, path: Path, project: str, commit: str) -> Iterator[RestoredFolder]:
    """Yield the folder of a row, whose project is in the folder `project`; make it if need be.

    A new one gets its place `path` when the block ends: it is there whole or not at all. Another
    process waits. Raises `ProjectError` if the place is somebody else's.
    """
    above, new = root / "restored", root / "restored/.new"
    files = (f"{each.name} is a file" for each in (above, new) if each.is_file())
    if why := why_not_own(root, "restored", "restored/.new") or next(files, ""):
        raise ProjectError(f"{above}: {why}; move it away")
    above.mkdir(exist_ok=True)
    for file, content in ((above / name, content) for name, content in _OWN.items()):
        if not (file.parent.is_symlink() or os.path.lexists(file)):
            file.parent.mkdir(exist_ok=True)
            file.write_text(content)
    same = checkout(root) / project
    main = same if (same / ".dvc").is_dir() else root
    with Locked(above):
        if os.path.lexists(path):
            _check_is_of(root, path)
            yield RestoredFolder(path, path / project, main, is_new=False)
            return
        _remove(root, new)
        _remove(root, path)  # git still lists a folder that was deleted
        try:
            git("worktree", "add", "--no-checkout", "--detach", "--", str(new), commit, cwd=root)
            admin = Path(text("rev-parse", "--absolute-git-dir", cwd=new))
            # The whole tree is wanted, also where the checkout is a sparse one.
            (admin / "info/sparse-checkout").unlink(missing_ok=True)
            yield RestoredFolder(new, new / project, main, is_new=True)
            # As git's manual has it: `git worktree move` refuses one with submodules.
            (admin / "gitdir").write_text(f"{path}/.git\n")
            new.rename(path)
        finally:
            _remove(root, new)


def place(root: Path, called: str, digits: Sequence[str], run_id: str) -> Path:
    """Return where the folder of a row is: its name, which has digits of its own.

    If somebody has called the row otherwise, the digits are those that its run id begins with.
    """
    name, own = _as_name(called), _as_name(run_id[:8])
    is_own = {*digits} & {*name.split("-")}
    return root / "restored" / (name if is_own else f"{name}-{own}".strip("-"))


def _remove(root: Path, folder: Path) -> None:
    """Remove a git worktree, also from git's list, and what else is there."""
    ask("worktree", "remove", "--force", "--force", str(folder), cwd=root)
    shutil.rmtree(folder, ignore_errors=True)


def _check_is_of(root: Path, folder: Path) -> None:
    """Raise `ProjectError` unless a folder is a git worktree of the repository at `root`.

    One that was copied with its repository is the other one's, and git would write there.
    """
    common = ("rev-parse", "--path-format=absolute", "--git-common-dir")
    is_one = not folder.is_symlink() and (folder / ".git").is_file()
    if not is_one or ask(*common, cwd=folder) != ask(*common, cwd=root):
        cure = f"move it away; if the repository has moved with it, `git worktree repair {folder}`"
        raise ProjectError(f"{folder}: exists, and is no git worktree of this repository; {cure}")


def _as_name(called: str) -> str:
    """Return a text of the store's as the name of a folder, which has at most 255 bytes."""
    name = re.sub(r"[^\w.=+-]+", "-", called).encode()[:120]
    return name.decode(errors="ignore").strip("-.")


def _leave_out_links(folder: Path) -> Iterator[str]:
    """Remove the links of a checkout that lead out of it, or to what git and DVC keep there.

    Anybody can have made the commit, and DVC would read and write through them.
    """
    real = os.path.realpath(folder)
    for entry in names("ls-files", "-s", "-z", cwd=folder):
        link = folder / entry.partition("\t")[2]
        leads_to = os.path.relpath(os.path.realpath(link), real)
        is_odd = leads_out(leads_to) or {".git", ".dvc"} & {*leads_to.split("/")}
        if entry.startswith("120000") and link.is_symlink() and is_odd:
            link.unlink()
            yield entry.partition("\t")[2]
