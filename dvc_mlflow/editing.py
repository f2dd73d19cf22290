"""Change commands in the text of dvc.yaml and dvc.lock, and not a byte more.

Only the source of a command changes, where YAML's parser finds it. DVC's own parser must then find
that the commands have changed as they should, and nothing else.
"""

import json
from collections.abc import Mapping, Sequence
from functools import reduce
from typing import Any

import yaml

from .prefix import find, is_prefixed, put, take
from .project import parse

Command = str | list[str]
"""As in dvc.yaml: DVC runs each line of a text by itself, and each item of a list as it is."""
Keys = tuple[str, ...]
Change = bool | None
"""True puts the prefix before a simple command, False before shell text; None takes it away."""
_MERGE = "tag:yaml.org,2002:merge"


def rewrite(text: str, changes: Mapping[Keys, Change]) -> str:
    """Return a YAML file in which the commands at these keys are changed.

    Raises `ValueError` if that cannot be written, or if more would change.
    """
    mark = text[: text.startswith("\ufeff")]  # the parser does not count it
    text = text.removeprefix(mark)
    document, root = parse(text, "dvc.yaml"), compose(text)
    sources: dict[tuple[int, int], str] = {}  # stages can share one
    for keys, change in changes.items():
        command = reduce(lambda value, key: value[key], keys, document)
        new = changed(command, change)
        document, node = _with(document, keys, new), locate(root, keys)
        scalars = node.value if isinstance(command, list) else [node]
        for i, both in enumerate(zip(_items(command), _items(new), strict=True)):
            if both[0] != both[1]:
                start, end = scalars[i].start_mark.index, scalars[i].end_mark.index
                places = [place for n, place in parts(command, change) if n == i]
                style = scalars[i].style or ""
                sources[start, end] = _source(text[start:end], style, both, places, change)
    for (start, end), source in sorted(sources.items(), reverse=True):
        text = f"{text[:start]}{source}{text[end:]}"
    if parse(text, "dvc.yaml") != document:
        raise ValueError("more than the commands would change")
    return f"{mark}{text}"


def changed(command: Command, change: Change) -> Command:
    """Return a command with the prefix, or without it."""
    found = _items(command)
    for i, part in reversed(parts(command, change)):
        item = found[i]
        found[i] = f"{item[: part.start]}{_new(item[part], change)}{item[part.stop :]}"
    return found if isinstance(command, list) else found[0]


def affected(command: Command, change: Change) -> list[str]:
    """Return those of a stage's commands that change."""
    return [_items(command)[i][part] for i, part in parts(command, change)]


def parts(command: Command, change: Change) -> list[tuple[int, slice]]:
    """Return where a stage's commands change: the number of an item, and the place in it.

    The last command gets the prefix, as it completes the stage; every command loses it.
    """
    found = []
    for i, item in enumerate(_items(command)):
        start = 0
        for line in [item] if isinstance(command, list) else item.splitlines(keepends=True):
            text = line.strip()
            begin, start = start + line.index(text), start + len(line)
            if text and not (text.startswith("#") and "\n" not in text):
                found.append((i, slice(begin, begin + len(text))))
    if change is not None:
        return found[-1:]
    return [(i, part) for i, part in found if is_prefixed(_items(command)[i][part])]


def compose(text: str) -> Any:
    """Return the nodes of a YAML text; raises `ValueError`."""
    try:
        return yaml.compose(text, yaml.CSafeLoader)
    except yaml.YAMLError as error:
        raise ValueError(" ".join(f"{error}".split())[:200]) from None


def locate(root: Any, keys: Keys) -> Any:
    """Return the node at these keys, even if it is merged in; raises `ValueError`."""
    for key in keys:
        found = _value(root, key)
        if found is None:
            raise ValueError(f"YAML has no key {key!r} there")
        root = found
    return root


def _value(node: Any, key: str) -> Any:
    pairs = node.value if isinstance(node, yaml.MappingNode) else []
    for name, value in pairs:
        if name.value == key:
            return value
    for name, value in pairs:
        if name.tag == _MERGE:
            for each in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                if (found := _value(each, key)) is not None:
                    return found
    return None


def _source(
    source: str, style: str, both: tuple[str, str], places: Sequence[slice], change: Change
) -> str:
    """Return the source of a scalar with these parts changed; raises `ValueError`.

    `both` are the scalar's old and new value.
    """
    old, new = both
    start, end = len(source), len(old)
    try:
        for place in reversed(places):
            for text in (old[place.stop : end], old[place]):  # what follows may be the same text
                if text.strip():
                    start, stop = find(source, text, style, start)
            source = f"{source[:start]}{_new(source[start:stop], change, style)}{source[stop:]}"
            end = place.start
        if parse(f"- {source}", "dvc.yaml") == [new]:
            return source
    except ValueError:
        pass
    if change is not None:
        raise ValueError("a command is written in a way that `deinit` could not restore")
    # Without the prefix the text may need quotes, if DVC or the user has written it anew since.
    quoted = json.dumps(new, ensure_ascii=False)
    return quoted if "\n" in new else "'{}'".format(new.replace("'", "''"))


def _new(command: str, change: Change, style: str = "") -> str:
    return take(command, style) if change is None else put(command, change, style)


def _items(command: Command) -> list[str]:
    return [*command] if isinstance(command, list) else [command]


def _with(value: Any, keys: Keys, new: Command) -> Any:
    """Return a document with another value at these keys; what it shares with others stays."""
    if not keys:
        return new
    return {**value, keys[0]: _with(value[keys[0]], keys[1:], new)}
