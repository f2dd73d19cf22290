"""A DVC project, opened in the workspace or at a commit; and how DVC's errors are reported."""

import logging
import os
import posixpath
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from graphlib import CycleError
from pathlib import Path
from typing import Any, Self

from dvc.exceptions import DvcException, PrettyDvcException
from dvc.repo import Repo
from dvc.scm import SCM, SCMError
from dvc.utils.serialize import PARSERS, ParseError

from ..errors import ProjectError, is_raised_in
from ..pipeline.stages import leads_out
from ..repository import Blobs, checkout, folder_of
from . import limits

limits.apply()


@contextmanager
def errors_reported() -> Iterator[None]:
    """Turn DVC's errors into `ProjectError`, one line each."""
    try:
        yield
    except CycleError as error:
        raise ProjectError(f"stages depend on one another: {' -> '.join(error.args[1])}") from None
    except RecursionError:
        raise ProjectError("dvc.yaml, or what it reads, is nested too deeply") from None
    except (DvcException, SCMError, OSError) as error:
        # DVC names files of a commit by their way from here to the root of the file system.
        text = str(error).replace("'./", "'").replace(f"{os.path.relpath('/')}/", "")
        text = " ".join(text.split())[:500] or type(error).__name__
        if isinstance(error, PrettyDvcException):  # it prints the rest, and the place, on a console
            text = f"{text}{_details(error) or '; `dvc status` says more'}"
        raise ProjectError(text) from None
    except (AttributeError, LookupError, TypeError, ValueError) as error:  # at YAML like `? - ?`
        if not is_raised_in("dvc", error):
            raise  # a bug of the tool
        what = f"{type(error).__name__}: {error}"[:200]
        raise ProjectError(f"DVC's files cannot be read ({what})") from error


def _details(error: Any) -> str:
    """Return where in a YAML file an error is, and what it is, if that is known."""
    for each in getattr(error.exc, "errors", ()) if hasattr(error, "exc") else ():
        return f": {each.msg} at {' -> '.join(map(str, each.path))}"
    cause = getattr(getattr(error, "exc", None), "__cause__", None)
    if mark := getattr(cause, "problem_mark", None):
        return f": {getattr(cause, 'problem', None) or 'syntax error'} in line {mark.line + 1}"
    return ""


class Opened:
    """The DVC project around the working directory, with the tool's names and paths."""

    def __init__(self) -> None:
        for name in ("dvc", "dvc_data", "dvc_objects"):
            logging.getLogger(name).setLevel(logging.CRITICAL)  # they log what they raise
        with errors_reported():
            self._repo = Repo()
        self.root = Path(self._repo.root_dir)
        self.top = checkout()
        if self._repo.config["core"].get("no_scm") and (self.top / ".git").exists():
            self._repo.scm = SCM(self._repo.root_dir)  # git has commits, whatever DVC is told
        self.folder = folder_of(self.root, self.top)
        self.blobs = Blobs(self.top)
        self._commit = ""
        self._locks: dict[str, dict[str, Any]] | None = None
        self._running: Any = None
        self._has_finished = False
        self._hashed: dict[str, tuple[Any, Any]] = {}
        self._edited: list[Any] = []
        self._outs: dict[str, Any] = {}
        self._files: dict[str, Any] = {}
        self._known_versions: dict[str, dict[str, str]] = {}

    @property
    def is_past(self) -> bool:
        """Whether it is read from a commit, not from the checkout."""
        return bool(self._commit)

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
            before, self._commit = self._commit, ""
            switched.callback(setattr, self, "_commit", before)
            switched.callback(setattr, self, "_files", self._files)
            self._files = {}
            if revision:
                config = self._repo.config  # the remotes and the cache of today
                with errors_reported():
                    try:
                        self._commit = switched.enter_context(self._repo.switch(revision))
                    except ValueError:  # from an older library for git
                        raise ProjectError(f"unknown Git revision {revision!r}") from None
                self._repo.__dict__["config"] = config
            yield self._commit

    def committed(self, commit: str, path: str) -> bytes | None:
        """Return a file of a commit, or None if there is none."""
        name = self._in_git(path)
        return self.blobs.read(f"{commit}:{name}") if name else None

    def _in_git(self, path: str) -> str:
        """Return the path of a file in the repository, or "" if it is outside."""
        name = posixpath.normpath(posixpath.join(self.folder, path))
        return "" if leads_out(name) else name

    def _content(self, path: str) -> bytes:
        """Return a file of the checkout or the commit; raises `OSError`."""
        if not self._commit:
            return bytes(self._repo.fs.cat_file(self._absolute(path)))
        if (content := self.committed(self._commit, path)) is None:
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


def parse(text: str, path: str) -> Any:
    """Return the content of a params, metrics or DVC file as DVC reads it; raises `ValueError`."""
    try:
        found = PARSERS[posixpath.splitext(path)[1].lower()](text, path)
    except ParseError as error:
        cause = " ".join(str(error.__cause__ or error).split())
        raise ValueError(cause[:200]) from None
    except (LookupError, TypeError) as error:  # DVC's parser fails so at YAML like `? - ?`
        raise ValueError(f"{type(error).__name__}: {error}"[:200]) from None
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    is_zero = not found and re.fullmatch(r"0+(\.0*)?", text.strip())
    return 0 if is_zero else found  # DVC's parsers make {} of both 0 and nothing
