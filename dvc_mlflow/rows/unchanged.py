"""Whether nothing has changed since MLflow last had all results of git's history."""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

from .. import own_files
from ..errors import StoreError
from ..git import ask
from ..place import address
from ..project import Project
from ..store import database
from ..store.store import Store
from .matching import Index
from .stores import AT_MOST


class Unchanged:
    """What is remembered of a recording: what was asked for, and what the store had then.

    `asked` is what the user asked for, besides what git and the environment say.
    """

    def __init__(self, project: Project, root: Path, asked: object) -> None:
        head = ask("rev-parse", "-q", "--verify", "HEAD", cwd=project.top)
        # The objects change if a partial clone is completed.
        refs = (
            ask("for-each-ref", cwd=project.top),
            head,
            ask("count-objects", "-v", cwd=project.top),
        )
        where = address(root), os.environ.get("MLFLOW_EXPERIMENT_NAME"), project.folder
        text = json.dumps([version("dvc-mlflow"), refs, where, asked], default=str)
        self._asked = hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()
        self._root, self._folder = root, project.folder
        self._cache = project.cache_state()
        self._file = root / ".dvc" / "tmp" / "dvc-mlflow-complete"

    def notes(self) -> Mapping[str, Sequence[str]] | None:
        """Return what had to be said then, if everything is as it was; else None."""
        with suppress(OSError, ValueError, LookupError, TypeError, StoreError):
            before = json.loads(own_files.read(f"{self._file}"))
            stores = before["stores"]
            is_same = before["asked"] == self._asked and before["cache"] in (None, self._cache)
            if is_same and stores == self._stores([*stores]):
                return dict(before["notes"])
        return None

    def remember(self, notes: Mapping[str, Sequence[str]], experiments: Sequence[str]) -> None:
        """Remember that all results are in these experiments, but for what has to be said."""
        with suppress(OSError, StoreError):
            content = {
                "asked": self._asked,
                "stores": self._stores(experiments),
                "notes": notes,
                "cache": self._cache if notes else None,  # what was missing can be there by now
            }
            own_files.write(f"{self._file}", json.dumps(content).encode())

    def _stores(self, experiments: Sequence[str]) -> dict[str, str]:
        """Return what the runs of each experiment hold: for SQLite, a count of all changes."""
        if (count := database.changes(address(self._root))) is not None:
            return dict.fromkeys(experiments, str(count))
        found = {}
        for name in experiments:
            store = Store(self._root, name, folder=self._folder, create=False)
            with store.errors_reported(AT_MOST):
                found[name] = Index(store).digest()
        return found
