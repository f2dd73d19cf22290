"""The name of a row: what tells it from others, the most telling part first.

These parts stand in it, as far as there are any: the item of a foreach or a matrix, the name that a
person has given to the experiment, three of the params that differ from those that the work started
from, and `edited code` if nobody has committed the result: else the commit's subject says what it
is. Seven digits of the result's digest end it. It is the same whether the row is made live or from
history.
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from ..pipeline.keys import named_params, short_names, tells
from ..pipeline.row_stages import RowStages, as_key
from ..pipeline.stages import Stage, normal
from ..pipeline.tags import text as as_text
from ..project import ParentCommit, is_generated, values_in
from .result import Result

_MOST_PARAMS = 3
_LONGEST_VALUE, _LONGEST = 30, 92  # characters, of a value and of all but the digits


class Changes(NamedTuple):
    """What differs from the first parent of the result's commit; from HEAD while there is none."""

    params: Mapping[str, Any]
    """The values of those that differ, by their names in the row."""
    short: Mapping[str, str]
    """By the same names: the last part, if no other param ends in it."""
    is_code: bool
    """Whether a stage has read code that its result there had not."""


def changes(result: Result, names: Collection[str]) -> Changes:
    """Return what differs, where these members of a row have run with what dvc.lock says.

    The others have the params and the code of the checkout, with which they run next: so a row can
    have its name as soon as its first stage begins. Where the earlier commit has nothing to compare
    with, nothing differs; where there is no commit at all, as without git, every param does.
    """
    origin, done = result.origin, {stage.name for stage in result.row_stages.scope(names)}
    earlier = ParentCommit(result.project, origin.base) if origin.base else None
    row_stages = _with_next_params(result, done)
    known: dict[tuple[str, str], Mapping[str, Any]] = {}
    values, differing = dict[str, Any](), list[str]()
    for name, stage, params, key in named_params(row_stages, [*row_stages.members]):
        if name in values:
            continue
        at = stage.name, params.file
        if at not in known:
            known[at] = earlier.params(stage, params) if earlier else {}
        values[name], before = normal(params.values[key]), known[at]
        is_known = bool(before) or not origin.commit
        if is_known and (key not in before or normal(before[key]) != values[name]):
            differing.append(name)
    is_code = earlier is not None and any(
        not _code(result, stage, is_done=stage.name in done) <= read
        for stage in row_stages.scope()
        if (read := earlier.read(stage)) is not None
    )
    return Changes({name: values[name] for name in differing}, short_names([*values]), is_code)


def _with_next_params(result: Result, done: Collection[str]) -> RowStages:
    """Return the row's stages; those that are not `done` have the params of their files."""
    row_stages, text = result.row_stages, result.project.text

    def now(stage: Stage) -> Stage:
        read = ((params, text(params.file)) for params in stage.params)
        own = [p if t is None else replace(p, values=values_in(t, p)) for p, t in read]
        return replace(stage, params=own)

    return row_stages.with_stages(
        {s.name: now(s) for s in row_stages.scope() if s.name not in done}
    )


def _code(result: Result, stage: Stage, *, is_done: bool) -> set[str]:
    """Return the md5s of the code that a stage has read, or reads next if it is not done."""
    code = {d.path: d.md5 for d in stage.deps if not (d.makers or d.is_data or d.is_outside)}
    if is_done:
        return {*code.values()} - {""}
    return set() if result.project.is_past else result.project.md5s_now(stage.name, code)


def words(result: Result, found: Changes) -> str:
    """Return what a name says before the digits."""
    items = [
        stage.item
        for name, stage in result.row_stages.members.items()
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
