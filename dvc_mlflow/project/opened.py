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
from dvc.scm import SCMError
from dvc.utils.serialize import PARSERS, ParseError

from ..errors import ProjectError, is_raised_in
from ..repository import Blobs, checkout, folder_of


@contextmanager
def errors_reported() -> Iterator[None]:
    """Turn DVC's errors into `ProjectError`, one line each."""
    try:
        yield
    except CycleError as error:
        raise ProjectError(f"stages depend on one another: {' -> '.join(error.args[1])}") from None
    except RecursionError:
        raise ProjectError("dvc.yaml is nested too deeply") from None
    except (DvcException, SCMError, OSError) as error:
        text = " ".join(str(error).split())[:500] or type(error).__name__
        says_more = isinstance(error, PrettyDvcException)
        raise ProjectError(f"{text}; `dvc status` says more" if says_more else text) from None
    except (AttributeError, LookupError, TypeError, ValueError) as error:  # at YAML like `? - ?`
        if not is_raised_in("dvc", error):
            raise  # a bug of the tool
        what = f"{type(error).__name__}: {error}"[:200]
        raise ProjectError(f"DVC's files cannot be read ({what})") from error


class Opened:
    """The DVC project around the working directory, with the tool's names and paths."""

    def __init__(self) -> None:
        for name in ("dvc", "dvc_data", "dvc_objects"):
            logging.getLogger(name).setLevel(logging.CRITICAL)  # they log what they raise
        with errors_reported():
            self._repo = Repo()
        self.root = Path(self._repo.root_dir)
        self.top = checkout()
        self.folder = folder_of(self.root, self.top)
        self.blobs = Blobs(self.top)
        self._commit = ""
        self._locks: dict[str, dict[str, Any]] | None = None
        self._running: Any = None
        self._has_finished = False
        self._hashed: dict[str, tuple[Any, Any]] = {}
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
        return self.blobs.read(f"{commit}:{posixpath.normpath(posixpath.join(self.folder, path))}")

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
        """Return the path of an output or a dependency, or its address if it is not a local one."""
        if item.fs.protocol != self._repo.fs.protocol and not item.is_in_repo:
            return str(item.def_path)
        return self._relative(item.fs_path)

    def _beside(self, file: str, path: str) -> str:
        folder = posixpath.dirname(self._relative(file))
        return posixpath.normpath(posixpath.join(folder, path))

    def _relative(self, path: str) -> str:
        found = os.path.relpath(path, self._repo.root_dir).replace(os.sep, "/")
        return "" if found == "." else found

    def _absolute(self, path: str) -> str:
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
