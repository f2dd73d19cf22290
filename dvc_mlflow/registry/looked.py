"""What this clone knew of git's registry when MLflow last showed it: whether to look again.

Only git is asked: GTO, DVC and MLflow take a second to import, and most repositories have no tags
of GTO's.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from .. import own_files
from ..git import ask


class Looked:
    """The tags that this clone has and had, in a file in the main repository's .dvc/tmp."""

    def __init__(self, root: Path, folder: str) -> None:
        self._file, self._folder = root / own_files.FOLDER / "registry", folder
        listed = ask("for-each-ref", "--format=%(objectname) %(refname)", "refs/tags", cwd=root)
        self._tags = "\n".join(line for line in listed.splitlines() if {"@", "#"} & {*line})
        self._known = self._read()

    @property
    def is_needed(self) -> bool:
        """Whether there are tags that GTO could read, or there were."""
        return bool(self._tags or self._known)

    @property
    def has_new(self) -> bool:
        """Whether the tags have changed since the last look."""
        return self.is_needed and self._own.get("tags") != _digest(self._tags)

    @property
    def is_open(self) -> bool:
        """Whether the last look has found anything that MLflow could not show."""
        return bool(self._own.get("open"))

    def is_shown(self, condition: object) -> bool:
        """Whether MLflow shows all, `condition` being the state of the store, if it is known."""
        if self.has_new or self.is_open or condition is None:
            return False
        return bool(self._own.get("condition") == _digest(f"{condition}"))

    @property
    def had(self) -> frozenset[str]:
        """The tags of GTO's that this clone had at any look."""
        return frozenset(self._known.get("had", ()))

    def write(self, tags: Iterable[str], condition: object, *, is_open: bool) -> None:
        """Take note of what has been shown."""
        own = {"tags": _digest(self._tags), "open": is_open, "condition": _digest(f"{condition}")}
        shown = {**self._known.get("shown", {}), self._folder: own}
        had = sorted(self.had.union(tags))
        with suppress(OSError):  # then everything is looked at again
            own_files.write(f"{self._file}", json.dumps({"had": had, "shown": shown}).encode())

    @property
    def _own(self) -> Mapping[str, Any]:
        found = self._known.get("shown", {}).get(self._folder, {})
        return found if isinstance(found, dict) else {}

    def _read(self) -> dict[str, Any]:
        try:
            found = dict(json.loads(own_files.read(f"{self._file}")))
        except (OSError, TypeError, ValueError):
            return {}
        had, shown = found.get("had"), found.get("shown")
        if not (isinstance(had, list) and isinstance(shown, dict)):
            return {}
        return found if all(isinstance(tag, str) for tag in had) else {}


def _digest(text: str) -> str:
    return hashlib.md5(text.encode(errors="replace"), usedforsecurity=False).hexdigest()
