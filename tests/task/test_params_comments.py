"""params.yaml documents itself: each key has a comment that explains it."""

import re

import pytest

from clone import ROOT
from params_text import KEYS, line_of
from vanilla_lstm.task.schema import Params

COMMENTED = (ROOT / "params.yaml").read_text()


def _in_words(key: str) -> str:
    """Return the schema's range for a key, in the words that the key's comment must use."""
    section, name = key.split(".")
    definition = Params.model_fields[section].annotation
    assert definition is not None
    schema = definition.model_json_schema()["properties"][name]
    kinds = schema.get("anyOf", [schema])
    kind = kinds[0].get("items", kinds[0])
    null = "null or " if {"type": "null"} in kinds else ""
    if kind["type"] == "boolean":
        return "true or false"
    if "enum" in kind:
        return f"{', '.join(kind['enum'][:-1])} or {kind['enum'][-1]}"
    low = kind.get("minimum", kind.get("exclusiveMinimum"))
    low = f"{'above ' if 'exclusiveMinimum' in kind else ''}{low:f}".rstrip("0").rstrip(".")
    if "exclusiveMaximum" in kind:
        return f"{null}{low}, below {kind['exclusiveMaximum']:g}"
    if kind.get("maximum", 10**15) == 10**15:  # memory runs out sooner
        return f"{null}{low} or more"
    return f"{null}{low} to {kind['maximum']:.0f}"


@pytest.mark.parametrize("key", KEYS)
def test_each_key_gives_its_range(key: str) -> None:
    """A key's comment says what the key is, the schema's range for it, and why it has its value."""
    line = COMMENTED.splitlines()[line_of(key, COMMENTED)]
    what, _, why = line.partition(" # ")[2].partition("; ")
    assert why
    if key == "train.curriculum":
        assert "{n_steps, epochs, learning_rate}" in what
    else:
        assert re.search(rf"(^|[ ,]){re.escape(_in_words(key))}$", what)
