"""What the plain content of a dvc.yaml says, before DVC has put values in."""

import posixpath
from collections.abc import Iterator, Mapping
from typing import Any

from .stages import overlap


def unmade_in(content: Mapping[str, Any]) -> set[str]:
    """Return the files that the top declares and no stage of the same dvc.yaml makes.

    They are relative to its folder. Raises errors of many kinds for what is no dvc.yaml.
    """
    made = []
    for stage in (content.get("stages") or {}).values():
        own = stage.get("do", stage)
        for kind in ("outs", "metrics", "plots"):
            made += [_join(own.get("wdir"), path) for path in _paths(own.get(kind))]
    declared = {_join("", path) for kind in ("metrics", "plots") for path in _at_top(content, kind)}
    unmade = {path for path in declared if not any(overlap(path, out) for out in made)}
    return unmade | {_join("", path) for path in content.get("params") or ()} if unmade else set()


def _at_top(content: Mapping[str, Any], kind: str) -> Iterator[str]:
    """Yield the files that the top declares as metrics or plots; a plot can name others."""
    given = content.get(kind) or ()
    entries = [{key: given[key]} for key in given] if isinstance(given, Mapping) else given
    for entry in entries:
        for path, more in entry.items() if isinstance(entry, Mapping) else [(entry, None)]:
            y = more.get("y") if isinstance(more, Mapping) else None
            yield from map(str, y if isinstance(y, Mapping) else [path])


def _paths(given: object) -> Iterator[str]:
    """Yield the paths in a list of a stage's outputs."""
    for entry in given if isinstance(given, list) else ():
        yield from map(str, entry if isinstance(entry, Mapping) else [entry])


def _join(folder: object, path: object) -> str:
    return posixpath.normpath(posixpath.join(str(folder or ""), str(path)))
