"""The entries of dvc.lock: parsed only if their text has changed, and given to DVC's stages."""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from dvc.dependency import ParamsDependency
from dvc.stage.loader import StageLoader
from dvc_data.hashfile.hash_info import HashInfo
from dvc_data.hashfile.meta import Meta

from ..errors import ProjectError
from .opened import parse

_OWN_LAYOUT = re.compile(r"schema: '2\.0'\nstages:\n((?: .*\n|\n)*)")
"""A lock as DVC writes it; one that a person has changed may have any other layout."""


class Entry(NamedTuple):
    """What dvc.lock has of one stage."""

    text: str
    value: Any


def read(text: str, before: Mapping[str, Entry], lock: str) -> dict[str, Entry]:
    """Return the entries of a lock by stage; those that it had `before` are not parsed again."""
    written = _OWN_LAYOUT.fullmatch(text)
    parts = re.split(r"(?m)^  (?=\S)", written[1])[1:] if written else []
    known = {entry.text: name for name, entry in before.items()}
    found = {known[part]: before[known[part]] for part in parts if part in known}
    try:
        for part in parts:
            if part not in known:
                ((name, value),) = parse(part, lock).items()
                found[name] = Entry(part, value)
        if not written:
            stages = (parse(text, lock) or {}).get("stages") or {}
            found = {name: Entry(repr(value), value) for name, value in stages.items()}
    except (AttributeError, ValueError) as error:
        raise ProjectError(f"{lock}: {error}") from None
    return found


def stages_in(text: str) -> dict[str, Any]:
    """Return the stages in a lock, even one from before DVC 2.0; raises `ValueError`."""
    found = parse(text, "dvc.lock") or {}
    own = found.get("stages") or {} if "schema" in found else found
    return {name: entry for name, entry in own.items() if isinstance(entry, dict)}


def with_entry(lock: bytes, one: bytes) -> bytes | None:
    """Return a lock with the only entry of another one, as DVC would write it.

    Return None if it is not in DVC's own layout, as DVC keeps what a person has added. DVC itself
    takes as long to write a lock with one entry more as to read and write all.
    """
    found = _OWN_LAYOUT.fullmatch(lock.decode(errors="replace"))
    if not found or re.search(r"(?m)^\s*#", found[1]):
        return None
    head, part = re.split(r"(?m)^  (?=\S)", one.decode())
    _, *parts = re.split(r"(?m)^  (?=\S)", found[1])
    key = part.partition("\n")[0]
    if key in (keys := [each.partition("\n")[0] for each in parts]):
        parts[keys.index(key)] = part
    else:
        parts.append(part)
    return "  ".join([head, *parts]).encode()


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
