"""Which of DVC's files git ignores in a commit, as DVC decides it in a checkout.

Git can track them nevertheless, by `git add -f`. DVC does not read them in a checkout, but would in
a commit, where the same dep would be another one.
"""

import posixpath
import re
from collections.abc import Mapping, Sequence, Set
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any

_ONE = re.compile(r"/[\w.-]+")
"""A rule for one file or folder: DVC writes one for each output."""


class GitIgnored:
    """Decides it for one commit after another, as most have the rules of the one before."""

    def __init__(self, scm: Any, folder: str) -> None:
        self._scm, self._folder = scm, folder
        self._rules: Mapping[str, str] = {}
        self._known: dict[str, bool] = {}

    def among(self, paths: Sequence[str], rules: Mapping[str, str]) -> set[str]:
        """Return which of these files are ignored; `rules` are the texts of .gitignore files.

        All are in the project, and have their paths in the repository.
        """
        if self._scm is None:
            return set()
        ways = {path: self._way(path) for path in paths}
        there = {each.rstrip("/") for way in ways.values() for each in way}
        used = {file: _about(text, posixpath.dirname(file), there) for file, text in rules.items()}
        if used != self._rules:
            self._rules, self._known = used, {}
        if new := {path: way for path, way in ways.items() if path not in self._known}:
            self._decide(new)
        return {path for path in paths if self._known[path]}

    def _way(self, path: str) -> list[str]:
        """Return the folders of the project on the way to a file, and the file."""
        start = f"{self._folder}/" if self._folder else ""
        parents = [f"{folder}/" for folder in PurePosixPath(path).parents][-2::-1]
        return [*(each for each in parents if len(each) > len(start)), path]

    def _decide(self, ways: Mapping[str, Sequence[str]]) -> None:
        now = self._scm.dulwich.ignore_manager
        with TemporaryDirectory() as folder:
            for file, text in self._rules.items():
                Path(folder, file).parent.mkdir(parents=True, exist_ok=True)
                Path(folder, file).write_text(text)
            manager = type(now)(folder, now._global_filters, now._ignorecase)
            for path, way in ways.items():
                self._known[path] = any(map(manager.is_ignored, way))


def _about(text: str, folder: str, there: Set[str]) -> str:
    """Return the rules of a folder's .gitignore, without those for one file that is not there."""
    lines = [
        line
        for line in text.splitlines()
        if not _ONE.fullmatch(line) or posixpath.join(folder, line[1:]) in there
    ]
    return "".join(f"{line}\n" for line in lines)
