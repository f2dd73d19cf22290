"""A DVC project, opened in the workspace or at a commit; and how DVC's errors are reported."""

import errno
import logging
import os
import posixpath
import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import cached_property
from graphlib import CycleError
from io import BytesIO
from pathlib import Path
from typing import Any, Self

from dvc.config import Config
from dvc.exceptions import DvcException, PrettyDvcException
from dvc.repo import Repo
from dvc.scm import SCM, SCMError
from dvc.utils.serialize import PARSERS, ParseError

from .. import work_tree
from ..errors import ProjectError, masked, one_line
from ..git import Blobs, checkout, glob, names
from ..pipeline.stages import leads_out
from ..place import folder_of

_MOST = 1_000_000  # values in a file that is parsed here, once all aliases are unfolded
_OWN = ("dvc.yaml", "dvc.lock", ".dvcignore", ".dvc/config")
"""The files that DVC reads of itself."""


@contextmanager
def errors_reported() -> Iterator[None]:
    """Turn DVC's errors into `ProjectError`, one line each."""
    with one_line("DVC's files cannot be read"):  # as at YAML like `? - ?`
        try:
            yield
        except CycleError as error:
            way = " -> ".join(error.args[1])
            raise ProjectError(f"stages depend on one another: {way}") from None
        except RecursionError:
            raise ProjectError("dvc.yaml, or what it reads, is nested too deeply") from None
        except (DvcException, SCMError, OSError) as error:
            raise ProjectError(masked(_text(error))) from None


def _text(error: Exception) -> str:
    """Return what DVC says, in one line."""
    # It names files of a commit by their way from here to the root of the file system.
    text = str(error).replace("'./", "'").replace(f"{os.path.relpath('/')}/", "")
    text = " ".join(text.split())[:500] or type(error).__name__
    if isinstance(error, PrettyDvcException):  # it prints the rest, and the place, on a console
        text = f"{text}{_details(error) or '; `dvc status` says more'}"
    return text


def _details(error: Any) -> str:
    """Return where in a YAML file an error is, and what it is, if that is known."""
    cause = getattr(error, "exc", None)
    if errors := getattr(cause, "errors", None):
        return f": {errors[0].msg} at {' -> '.join(map(str, errors[0].path))}"
    cause = getattr(cause, "__cause__", None)
    if mark := getattr(cause, "problem_mark", None):
        return f": {getattr(cause, 'problem', None) or 'syntax error'} in line {mark.line + 1}"
    return ""


class _Repo(Repo):
    """DVC's project at a root, with settings that need not be its own."""

    def __init__(self, root: str, settings_of: Path | None) -> None:
        self._settings_of = settings_of
        # DVC would take a folder that looks like a bare repository for one. And git has commits,
        # whatever DVC is told.
        super().__init__(root, scm=git_at(checkout(Path(root))))

    @cached_property
    def config(self) -> Config:
        """The settings, also after DVC has dropped them, as it does whenever it takes its lock."""
        if self._settings_of is None:
            return super().config
        found = Config(f"{self._settings_of}/.dvc")
        found["cache"].setdefault("dir", f"{self._settings_of}/.dvc/cache")
        return found

    def _ignore(self) -> None:
        """Write no .gitignore."""


def git_at(top: Path) -> Any:
    """Return DVC's access to git in a checkout.

    By itself, it takes a git worktree of a submodule for a folder of git's own.
    """
    scm = SCM(str(top))
    scm.dulwich.repo.path = scm._root_dir = str(top)
    return scm


class DvcRepo:
    """The DVC project around a folder, by default the working directory, with the tool's names.

    Its settings and remotes are those of the project `settings_of`, by default its own.
    """

    def __init__(self, settings_of: Path | None = None, at: Path | None = None) -> None:
        for name in ("dvc", "dvc_data", "dvc_objects"):
            logging.getLogger(name).setLevel(logging.CRITICAL)  # they log what they raise
        self.top = checkout(at)
        with errors_reported():
            root = Repo.find_root(at and f"{at}")
            _check_own_files(root, self.top)
            self._repo = _Repo(root, settings_of)
        self.root = Path(self._repo.root_dir)
        self.folder = folder_of(self.root, self.top)
        self.blobs = Blobs(self.top)
        self.commit = ""
        self.locks: dict[str, dict[str, Any]] | None = None
        """What the locks have, by path and stage, if DVC has not read them."""
        self.outs: dict[str, Any] = {}
        """DVC's outputs, by path."""
        self._files: dict[str, Any] = {}
        self._versions: dict[tuple[str, str], dict[str, str]] = {}

    @property
    def is_past(self) -> bool:
        """Whether it is read from a commit, not from the checkout."""
        return bool(self.commit)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close DVC's databases, and end `git cat-file`."""
        self._repo.close()
        self.blobs.close()

    @contextmanager
    def at(self, revision: str) -> Iterator[str]:
        """Read from a commit in the block, or from the workspace if it is ""; yield its hash."""
        with ExitStack() as switched:
            now: Any
            for name, now in {"commit": "", "locks": None, "_files": {}}.items():
                switched.callback(setattr, self, name, getattr(self, name))
                setattr(self, name, now)
            if revision:
                config = self._repo.config  # the remotes and the cache of today
                # Another library for git, once used, would decide what git ignores in the checkout.
                switched.callback(self._repo.scm.backends.move_to_end, "dulwich", last=False)
                with errors_reported():
                    try:
                        self.commit = switched.enter_context(self._repo.switch(revision))
                    except ValueError:  # from an older library for git
                        raise ProjectError(f"unknown Git revision {revision!r}") from None
                    _read_by_git(self._repo.fs, self.blobs)
                self._repo.__dict__["config"] = config
            yield self.commit

    def committed(self, commit: str, path: str) -> bytes | None:
        """Return a file of a commit, or None if there is none."""
        name = self._in_git(path)
        return self.blobs.read(f"{commit}:{name}") if name else None

    def is_inside(self, path: str | Path) -> bool:
        """Whether a path of the checkout, or what it links to, is in the repository.

        Anybody can have written the path, or committed the link.
        """
        return work_tree.is_inside(path, self.top)

    def _in_git(self, path: str) -> str:
        """Return the path of a file in the repository, or "" if it is outside."""
        name = posixpath.normpath(posixpath.join(self.folder, path))
        return "" if leads_out(name) else name

    def _content(self, path: str, cached: str = "") -> bytes:
        """Return a file of the checkout or the commit; raises `OSError`.

        In the checkout, it can be a link to the file in DVC's cache that is `cached`.
        """
        if not self.commit:
            return work_tree.read(self._absolute(path), self.top, cached=cached)
        if (content := self.committed(self.commit, path)) is None:
            raise FileNotFoundError(path)
        return content

    def _name(self, stage: Any) -> str:
        own = getattr(stage, "name", None) or Path(stage.path).stem
        return posixpath.join(posixpath.dirname(self._relative(stage.path)), own)

    def _path(self, item: Any) -> str:
        """Return the path of an output or a dependency, or its address if it is elsewhere.

        DVC itself takes `..` above the repository's root for that root when it reads a commit.
        """
        given = str(item.def_path)
        if "://" in given or posixpath.isabs(given):
            return given
        found = posixpath.normpath(posixpath.join(self._relative(item.stage.wdir), given))
        return "" if found == "." else found

    def _beside(self, file: str, path: str) -> str:
        folder = posixpath.dirname(self._relative(file))
        return posixpath.normpath(posixpath.join(folder, path))

    def _relative(self, path: str) -> str:
        found = os.path.relpath(path, self._repo.root_dir).replace(os.sep, "/")
        return "" if found == "." else found

    def _absolute(self, path: str) -> str:
        if posixpath.isabs(path):
            return path
        joined = self._repo.fs.join(self._repo.root_dir, *path.split("/"))
        return posixpath.normpath(str(joined))


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
    found = [f"{root}/{name}" for name in _OWN]
    for path in (f"{top}/{name}" for name in listed):
        found += [path, f"{posixpath.dirname(path)}/dvc.lock"]
    for path in dict.fromkeys(found):
        work_tree.check(path, top, of_dvc=True)


def _read_by_git(fs: Any, blobs: Blobs) -> None:
    """Let DVC read a commit's files by git itself.

    Its own library reads them in a thread. If that fails, as with a split index or a file that a
    partial clone lacks, it waits for ever, and Ctrl-C does not end it.
    """
    trie = fs.fs.trie

    def read(key: tuple[str, ...], **_: Any) -> BytesIO:
        found = trie.trie[key]
        if found.isdir:
            raise IsADirectoryError
        content = blobs.read(found.sha)
        if content is None:
            path = "/".join(key)
            raise OSError(
                f"git lacks {path}: `git fetch --refetch --no-filter` completes a partial clone"
            )
        return BytesIO(content)

    trie.open = read


def parse(text: str, path: str) -> Any:
    """Return the content of a params, metrics or DVC file as DVC reads it; raises `ValueError`."""
    try:
        found = PARSERS[posixpath.splitext(path)[1].lower()](text, path)
    except ParseError as error:
        cause = " ".join(str(error.__cause__ or error).split())
        raise ValueError(cause[:200]) from None
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except Exception as error:  # its parsers raise what they like: `MemoryError`, `TypeError`, …
        raise ValueError(f"{type(error).__name__}: {error}"[:200].rstrip(": ")) from None
    if "*" in text and _unfolded(found, {}) > _MOST:
        raise ValueError(f"its aliases unfold to more than {_MOST:,} values")
    is_zero = not found and re.fullmatch(r"0+(\.0*)?", text.strip())
    return 0 if is_zero else found  # DVC's parsers make {} of both 0 and nothing


def _unfolded(value: Any, known: dict[int, float]) -> float:
    """Return how many values there are in a value; those that contain themselves have no end."""
    if not isinstance(value, Mapping | list):
        return 1
    if id(value) not in known:
        known[id(value)] = float("inf")
        inner = value.values() if isinstance(value, Mapping) else value
        known[id(value)] = 1 + sum(_unfolded(each, known) for each in inner)
    return known[id(value)]
