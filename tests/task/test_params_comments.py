"""params.yaml documents itself: each key has a comment that explains it."""

import re
from types import NoneType
from typing import Any, Literal, get_args, get_origin

from voluptuous import Range

from support.clone import ROOT
from support.params_text import KEYS, line_of
from vanilla_lstm.task.schema import Params

COMMENTED = (ROOT / "params.yaml").read_text()


def _parts(hint: Any) -> list[Any]:
    """Return a type and all that it is made of."""
    return [hint, *(part for each in get_args(hint) for part in _parts(each))]


def _in_words(key: str) -> str:
    """Return the schema's range for a key, in the words that the key's comment must use."""
    section, name = key.split(".")
    hint = Params.__annotations__[section].__annotations__[name]
    if hint is bool:
        return "true or false"
    if get_origin(hint) is Literal:
        *others, last = get_args(hint)
        return f"{', '.join(others)} or {last}"
    parts = _parts(hint)
    null = "null or " if NoneType in parts else ""
    (limits,) = (part for part in parts if isinstance(part, Range))
    low = f"{limits.min:f}".rstrip("0").rstrip(".")
    low = low if limits.min_included else f"above {low}"
    if not limits.max_included:
        return f"{null}{low}, below {limits.max:g}"
    if limits.max == 10**15:  # memory runs out sooner
        return f"{null}{low} or more"
    return f"{null}{low} to {limits.max:.0f}"


def test_each_key_gives_its_range() -> None:
    """A key's comment says what the key is, the schema's range for it, and why it has its value."""
    for key in KEYS:
        line = COMMENTED.splitlines()[line_of(key, COMMENTED)]
        what, _, why = line.partition(" # ")[2].partition("; ")
        assert why, key
        if key == "train.curriculum":
            assert "{n_steps, epochs, learning_rate}" in what
        else:
            assert re.search(rf"(^|[ ,]){re.escape(_in_words(key))}$", what), key
