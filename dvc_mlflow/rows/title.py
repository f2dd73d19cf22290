"""The name of a row: what tells it from others, the most telling part first.

These parts stand in it, as far as there are any: the item of a foreach or a matrix, the name that a
person has given to the experiment, three of the params that differ from those that the work started
from, `edited code`, and seven digits of the result's digest. It is the same whether the row is made
live or from history, and nothing that is recorded later changes it.
"""

import hashlib
import re
from collections.abc import Collection, Mapping

from ..pipeline.lineages import as_key
from ..pipeline.tags import text as as_text
from ..project import is_generated
from .changes import Changes
from .result import Result

_DIGITS = 7
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
    for name, value in [*found.params.items()][:_MOST_PARAMS]:
        parts.append(f"{found.short[name]}={_cut(f'{value}', _LONGEST_VALUE)}")
    parts += ["edited code"] * found.is_code
    return as_text(_cut(" ".join(filter(None, parts)), _LONGEST))


def named(start: str, digits: str) -> str:
    """Return the name with these words and digits."""
    return f"{start} {digits[:_DIGITS]}".strip()


def title(start: str, digests: Mapping[str, str], taken: Collection[str] = ()) -> str:
    """Return the name with these words of a row with these digests, by their names in it.

    The digits are those of the first stage's result, which the row has from its beginning and
    keeps. If other rows with that result have `taken` the name, as when only the code of an
    evaluation has changed, they are those of the first result with which no row has it.
    """
    whole = hashlib.md5("".join(digests.values()).encode(), usedforsecurity=False).hexdigest()
    names = [named(start, digest) for digest in (*digests.values(), whole)]
    return next((name for name in names if name not in taken), names[-1])


def _cut(text: str, longest: int) -> str:
    text = re.sub(r"\s+", " ", text).strip()
    return text if len(text) <= longest else f"{text[: longest - 1]}…"
