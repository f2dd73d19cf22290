"""The entries of dvc.lock: parsed only if their text has changed, and given to DVC's stages."""

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from dvc.dependency import ParamsDependency
from dvc.stage.loader import StageLoader
from dvc_data.hashfile.hash_info import HashInfo
from dvc_data.hashfile.meta import Meta

from ..errors import ProjectError
from .dvc_repo import parse

_OWN_LAYOUT = re.compile(r"schema: '2\.0'\nstages:\n((?: .*\n|\n)*)")
"""A lock as DVC writes it; one that a person has changed may have any other layout."""


_BEGINS = re.compile(r"(?m)^  (?=\S)")
"""Where an entry begins in that layout."""


class Entry(NamedTuple):
    """What dvc.lock has of one stage."""

    value: Any


_parsed: dict[str, tuple[str, Any]] = {}
"""Name and value of entries by their text: most commits change few of a lock's many."""
_MOST = 50_000  # entries in memory


def read(text: str, before: Mapping[str, Entry], lock: str) -> dict[str, Entry]:
    """Return the entries of a lock by stage; an unchanged one is that which it had `before`."""
    try:
        now = stages_in(text, lock)
    except (AttributeError, ValueError) as error:
        raise ProjectError(f"{lock}: {error}") from None
    known = {name: entry for name, entry in before.items() if entry.value is now.get(name)}
    return {name: known.get(name) or Entry(value) for name, value in now.items()}


@lru_cache(16)  # rows of the same commit follow one another
def stages_in(text: str, lock: str = "dvc.lock") -> dict[str, Any]:
    """Return the stages in a lock; raises `ValueError`, also at one from before DVC 2.0.

    Entries with the same text are the same object: nobody may change what is returned.
    """
    written = _OWN_LAYOUT.fullmatch(text)
    if written and (found := _by_entry(written[1], lock)) is not None:
        return found
    content = parse(text, lock) or {}
    if not isinstance(content, dict):
        raise ValueError(f"must be a mapping; received {content!r:.100}")
    if content and "schema" not in content:
        raise ValueError("DVC 1 has written it, and DVC does not read that any more")
    own = content.get("stages") or {}
    return {name: entry for name, entry in own.items() if isinstance(entry, dict)}


def entry_texts(lock: str) -> dict[str, str]:
    """Return the text of what each entry in a lock says of its outputs, by that of the entry.

    If the lock has another layout than DVC's own, both are its whole text.
    """
    if not (written := _OWN_LAYOUT.fullmatch(lock)):
        return {lock: lock}
    entries = _BEGINS.split(written[1])[1:]
    return {entry: entry.partition("\n    outs:\n")[2] for entry in entries}


def _by_entry(stages: str, lock: str) -> dict[str, Any] | None:
    """Return the stages in DVC's own layout, or None if they are not one entry after another."""
    head, *parts = _BEGINS.split(stages)
    if head.strip():
        return None  # indented in another way
    if new := [part for part in parts if part not in _parsed]:
        try:
            entries = parse("".join(new), lock).items()
        except (AttributeError, ValueError):
            return None  # an alias of another entry, or it is wrong as a whole
        if len(entries) != len(new) or not all(isinstance(value, dict) for _, value in entries):
            return None  # a comment between entries, or an entry that is none
        if len(_parsed) > _MOST:
            _parsed.clear()
            return _by_entry(stages, lock)
        _parsed.update(zip(new, entries, strict=True))
    found = dict(_parsed[part] for part in parts)
    return found if len(found) == len(parts) else None  # twice the same stage


def fill(stage: Any, entry: Mapping[str, Any] | None, lock: str) -> None:
    """Give a stage the hashes in its entry of a lock, and no others."""
    for item in (*stage.deps, *stage.outs):
        item.hash_info, item.obj = HashInfo(), None
        if not isinstance(item, ParamsDependency):
            item.meta, item.files = Meta(), None
    stage.cmd_changed = entry is not None and entry.get("cmd") != stage.cmd
    try:
        StageLoader.fill_from_lock(stage, entry)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        what = f"{type(error).__name__}: {error}"
        raise ProjectError(f"{lock}: the entry of {stage.name} cannot be read ({what})") from None
