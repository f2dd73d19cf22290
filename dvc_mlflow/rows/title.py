"""The name of a row: what tells it from others, the most telling part first.

These parts stand in it, as far as there are any: the item of a foreach or a matrix, the name that a
person has given to the experiment, three of the params that differ from those that the work started
from, and `edited code` if nobody has committed the result: else the commit's subject says what it
is. Seven digits of the result's digest end it. It is the same whether the row is made live or from
history.
"""

import re

from ..pipeline.lineages import as_key
from ..pipeline.naming import tells
from ..pipeline.tags import text as as_text
from ..project import is_generated
from .changes import Changes
from .result import Result

_MOST_PARAMS = 3
_LONGEST_VALUE, _LONGEST = 30, 92  # characters, of a value and of all but the digits


def words(result: Result, found: Changes) -> str:
    """Return what a name says before the digits."""
    items = [
        stage.item
        for name, stage in result.lineage.members.items()
        if stage.item and name == as_key(stage.group)
    ]
    given = result.origin.experiment
    parts = [*dict.fromkeys(items), "" if is_generated(given) else given]
    telling = [(name, value) for name, value in found.params.items() if tells(name, value)]
    for name, value in telling[:_MOST_PARAMS]:
        parts.append(f"{found.short[name]}={_cut(f'{value}', _LONGEST_VALUE)}")
    if found.is_code and not result.origin.is_committed:
        parts.append("edited code")
    return as_text(_cut(" ".join(filter(None, parts)), _LONGEST))


def _cut(text: str, longest: int) -> str:
    text = re.sub(r"\s+", " ", text).strip()
    return text if len(text) <= longest else f"{text[: longest - 1]}…"
