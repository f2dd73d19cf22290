"""A DVC project, opened in the checkout or at a commit."""

import errno
import logging
import os
import posixpath
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any, Self

from dvc.config import Config
from dvc.dvcfile import load_file
from dvc.repo import Repo
from dvc.scm import SCM

from .. import work_tree
from ..git import Blobs, checkout, glob, names
from ..pipeline.stages import leads_out
from ..place import folder_of
from .dvc_errors import errors_reported

_OWN = ("dvc.yaml", "dvc.lock", ".dvcignore", ".dvc/config")
"""The files that DVC reads of itself."""


class _Repo(Repo):
    """DVC's project at a root, with settings that need not be its own."""

    def __init__(self, root: str, settings_of: Path | None) -> None:
        folder = f"{settings_of or root}/.dvc"
        self._settings = Config(folder)
        self._settings["cache"].setdefault("dir", f"{folder}/cache")
        # DVC would take a folder that looks like a bare repository for one. And git has commits,
        # whatever DVC is told.
        super().__init__(root, scm=git_at(checkout(Path(root))))

    @property
    def config(self) -> Config:
        """The settings of today, also at a commit, whose own could name programs."""
        return self._settings

    def _ignore(self) -> None:
        """Write no .gitignore."""


def git_at(top: Path) -> Any:
    """Return DVC's access to git in a checkout.

    By itself, it takes a git worktree of a submodule for a folder of git's own.
    """
    scm = SCM(str(top))
    scm.dulwich.repo.path = scm._root_dir = str(top)
    return scm


class Project:
    """The DVC project around a folder, by default the working directory; raises `ProjectError`.

    Its settings and remotes are those of the project `settings_of`, by default its own. Paths and
    names are the tool's: relative to the project's root, with forward slashes.
    """

    def __init__(self, settings_of: Path | None = None, at: Path | None = None) -> None:
        for name in ("dvc", "dvc_data", "dvc_objects"):
            logging.getLogger(name).setLevel(logging.CRITICAL)  # they log what they raise
        self.top = checkout(at)
        """The root of the git checkout."""
        with errors_reported():
            root = Repo.find_root(at and f"{at}")
            _check_own_files(root, self.top)
            self.repo: Repo = _Repo(root, settings_of)
            """DVC's own object."""
        self.root = Path(self.repo.root_dir)
        self.folder = folder_of(self.root, self.top)
        """The project's folder in the repository, or ""."""
        self.blobs = Blobs(self.top)
        self.commit = ""
        """The commit that is read, or "" for the checkout."""
        self.outs: dict[str, Any] = {}
        """DVC's outputs, by path."""
        self.versions: dict[tuple[str, str], dict[str, str]] = {}
        """The blobs of all commits that a file has had, by path and algorithm, then by md5."""
        self.dvc_files: dict[str, Any] = {}
        """DVC's own objects for its files, by their absolute paths, once they were asked for."""

    @property
    def remote(self) -> str:
        """The name of the default DVC remote, or ""."""
        return str(self.repo.config["core"].get("remote") or "")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.repo.close()
        self.blobs.close()

    @contextmanager
    def at(self, revision: str) -> Iterator[str]:
        """Read from a commit in the block, or from the checkout if it is ""; yield its hash."""
        with ExitStack() as switched:
            switched.callback(vars(self).update, commit=self.commit, dvc_files=self.dvc_files)
            self.commit, self.dvc_files = "", {}
            if revision:
                # Another library for git, once used, would decide what git ignores in the checkout.
                switched.callback(self.repo.scm.backends.move_to_end, "dulwich", last=False)
                with errors_reported():
                    self.commit = switched.enter_context(self.repo.switch(revision))
                    _read_by_git(self.repo.fs, self.blobs)
            yield self.commit

    def content(self, path: str, cached: str = "") -> bytes:
        """Return a file of the checkout or the commit; raises `OSError`.

        In the checkout, it can be a link to the file in DVC's cache that is `cached`.
        """
        if not self.commit:
            return work_tree.read(self.absolute(path), self.top, cached=cached)
        if (content := self.committed(self.commit, path)) is None:
            raise FileNotFoundError(path)
        return content

    def text(self, path: str) -> str | None:
        """Return the text of a file of the checkout or the commit, if there is one."""
        try:
            return self.content(path).decode()
        except (OSError, ValueError):
            return None

    def committed(self, commit: str, path: str) -> bytes | None:
        """Return a file of a commit, or None if there is none."""
        name = self.in_git(path)
        return self.blobs.read(f"{commit}:{name}") if name else None

    def dvc_file(self, path: str) -> Any:
        """Return DVC's own object for a dvc.yaml or a `.dvc` file, which is parsed once."""
        if path not in self.dvc_files:
            self.dvc_files[path] = load_file(self.repo, path)
        return self.dvc_files[path]

    def is_inside(self, path: str | Path) -> bool:
        """Whether a path of the checkout, or what it links to, is in the repository.

        Anybody can have written the path, or committed the link.
        """
        return work_tree.is_inside(path, self.top)

    def in_git(self, path: str) -> str:
        """Return the path of a file in the repository, or "" if it is outside."""
        name = posixpath.normpath(posixpath.join(self.folder, path))
        return "" if leads_out(name) else name

    def name_of(self, stage: Any) -> str:
        """Return the name of one of DVC's stages: below the root, its folder comes first."""
        own = getattr(stage, "name", None) or Path(stage.path).stem
        return posixpath.join(posixpath.dirname(self.relative(stage.path)), own)

    def path_of(self, item: Any) -> str:
        """Return the path of an output or a dependency, or its address if it is elsewhere.

        DVC itself takes `..` above the repository's root for that root when it reads a commit.
        """
        path = str(item.def_path)
        if "://" in path or posixpath.isabs(path):
            return path
        found = posixpath.normpath(posixpath.join(self.relative(item.stage.wdir), path))
        return "" if found == "." else found

    def beside(self, file: str, path: str) -> str:
        """Return a path that a dvc.yaml, given by DVC's path of it, has relative to itself."""
        folder = posixpath.dirname(self.relative(file))
        return posixpath.normpath(posixpath.join(folder, path))

    def relative(self, path: str) -> str:
        """Return an absolute path of DVC's relative to the root, which itself is ""."""
        found = os.path.relpath(path, self.repo.root_dir).replace(os.sep, "/")
        return "" if found == "." else found

    def absolute(self, path: str) -> str:
        """Return a path as DVC has it, in the checkout or the commit."""
        return posixpath.normpath(posixpath.join(self.repo.root_dir, path))


def _check_own_files(root: str, top: Path) -> None:
    """Raise `OSError` if DVC's own files of a project are not what DVC should read.

    Nor does DVC write into a folder outside, to which a commit has a link; a user's own may lead
    there.
    """
    folder = folder_of(Path(root), top)
    for path in (f"{root}/{name}" for name in (".dvc", ".dvc/tmp", ".dvc/cache")):
        leads_out = not work_tree.is_inside(path, top, of_dvc=True)
        if leads_out and names("ls-files", "-z", "--", os.path.relpath(path, top), cwd=top):
            raise work_tree.RefusedError(errno.EPERM, "is a link that git tracks; delete it", path)
    patterns = (glob(folder, f"**/{name}") for name in ("dvc.yaml", ".dvcignore"))
    listed = names("ls-files", "-co", "--exclude-standard", "-z", "--", *patterns, cwd=top)
    files = [f"{root}/{name}" for name in _OWN]
    for path in (f"{top}/{name}" for name in listed):
        files += [path, f"{posixpath.dirname(path)}/dvc.lock"]
    for path in dict.fromkeys(files):
        work_tree.check(path, top, of_dvc=True)


def _read_by_git(fs: Any, blobs: Blobs) -> None:
    """Let DVC read a commit's files by git itself.

    Its own library reads them in a thread. If that fails, as with a split index or a file that a
    partial clone lacks, it waits for ever, and Ctrl-C does not end it.
    """
    trie = fs.fs.trie

    def read(key: tuple[str, ...], **_: Any) -> BytesIO:
        node = trie.trie[key]
        if node.isdir:
            raise IsADirectoryError
        content = blobs.read(node.sha)
        if content is None:
            path = "/".join(key)
            raise OSError(
                f"git lacks {path}: `git fetch --refetch --no-filter` completes a partial clone"
            )
        return BytesIO(content)

    trie.open = read
