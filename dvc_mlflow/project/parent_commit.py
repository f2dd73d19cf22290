"""What an earlier commit has: the stages' params and code in its dvc.lock, and its params files."""

import posixpath
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from ..pipeline.numbers import flatten
from ..pipeline.stages import Params, Stage
from .dvc_repo import DvcRepo, parse
from .lock_entries import stages_in


class ParentCommit:
    """The project at an earlier commit, as far as git has its files."""

    def __init__(self, project: DvcRepo, commit: str) -> None:
        self._project, self._commit = project, commit

    def entry(self, stage: Stage) -> Mapping[str, Any]:
        """Return what dvc.lock has of a stage, or {} if that is nothing."""
        folder, _, own = stage.group.rpartition("/")
        found = _entries(self._read(posixpath.join(folder, "dvc.lock")))
        entry = found.get(f"{own}@{stage.item}" if stage.item else own)
        return entry if isinstance(entry, Mapping) else {}

    def params(self, stage: Stage, params: Params) -> dict[str, Any]:
        """Return the values of a stage's params by dotted key, as far as they are known.

        Those that dvc.lock has made the stage's result; the others are in the params file.
        """
        found = dict(_values(self._read(params.file), params.file))
        locked = self.entry(stage).get("params")
        for file, values in (locked if isinstance(locked, Mapping) else {}).items():
            # In dvc.lock the path is relative to the stage's working directory.
            is_same = f"/{params.file}".endswith(f"/{re.sub(r'^([.][.]/)+', '', f'{file}')}")
            if is_same and isinstance(values, Mapping):
                found |= flatten(values)
        return found

    def read(self, stage: Stage) -> set[str] | None:
        """Return the md5s of what a stage had read, or None if dvc.lock does not have the stage."""
        deps = self.entry(stage).get("deps")
        if not isinstance(deps, list):
            return None
        return {f"{dep.get('md5')}" for dep in deps if isinstance(dep, Mapping)}

    def _read(self, path: str) -> bytes:
        return self._project.committed(self._commit, path) or b""


def values_in(text: str, params: Params) -> dict[str, Any]:
    """Return the values of params in the text of their file."""
    every = _values(text.encode(), params.file)
    return {key: value for key, value in every.items() if is_among(key, params.declared)}


def is_among(key: str, declared: Sequence[str]) -> bool:
    """Whether a stage's params, which are keys or sections, include a key."""
    return not declared or any(key == name or key.startswith(f"{name}.") for name in declared)


@lru_cache(16)
def _entries(lock: bytes) -> Mapping[str, Any]:
    try:
        return stages_in(lock.decode())
    except (AttributeError, ValueError):
        return {}


@lru_cache(16)
def _values(content: bytes, file: str) -> Mapping[str, Any]:
    try:
        found = parse(content.decode(), file)
        return flatten(found) if isinstance(found, Mapping) else {}
    except ValueError:
        return {}
