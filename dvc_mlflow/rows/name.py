"""What a row's name says after its digits: what tells the row from others.

The stage or the item comes first, if its commit has several rows. Then comes the name that a person
has given to the experiment, or the params that differ from those in the parent commit's dvc.lock,
or else the commit's subject. It is the same whether the row is made live or from history.
"""

import posixpath
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from ..errors import ProjectError
from ..git import ask
from ..pipeline.keys import named_params, short_names, tells
from ..pipeline.numbers import flatten
from ..pipeline.row import DIGITS, UNCOMMITTED, RowKey
from ..pipeline.row_stages import divided
from ..pipeline.stages import normal
from ..pipeline.tags import as_text
from ..project.definitions import stages_in
from ..project.experiment_names import is_generated
from .commits import EXPERIMENTS
from .kept_trees import REFS
from .result import Result

_LONGEST, _LONGEST_VALUE = 48, 30  # characters, of a part and of a value in it
_Before = Mapping[str, tuple[Sequence[Mapping[str, Any]], str]]
"""Of stages the values of params by dotted key, one for each file, and the text of their deps."""


def words(result: Result, names: Collection[RowKey] = ()) -> str:
    """Return what a name says after the digits, of these members of the row or of all."""
    experiment, before = result.origin.experiment, _before(result)
    what = "" if is_generated(experiment) else _cut(experiment)
    what = what or _fitting(_params(result, names, before)) or _subject(result, before)
    return as_text(f"{_cut(_place(result))} {what}".strip())


def _place(result: Result) -> str:
    """Return the item or stage of a row, by its label if others have the same; "" if alone."""
    rows = [each.last() for each in divided(result.pipeline, result.state.stages)]
    labels = [stage.label.removesuffix("/dvc.yaml") for stage in rows]  # of what no stage makes
    names = [stage.item or posixpath.basename(n) for stage, n in zip(rows, labels, strict=True)]
    i = [stage.name for stage in rows].index(result.row_stages.last().name)
    return "" if len(rows) == 1 else names[i] if names.count(names[i]) == 1 else labels[i]


def _before(result: Result) -> _Before:
    """Return what the parent commit's dvc.lock has of the stages that made the row."""
    before, base = dict[str, tuple[Sequence[Mapping[str, Any]], str]](), result.origin.base
    for stage in result.row_stages.scope():
        lock = posixpath.join(folder := posixpath.dirname(stage.group), "dvc.lock")
        text = (result.project.committed(base, lock) if base else None) or b""
        try:
            entry = stages_in(text.decode(errors="replace"))[stage.name.removeprefix(f"{folder}/")]
            params = [flatten(each) for each in entry.get("params", {}).values()]
            before[stage.name] = params, f"{entry.get('deps', '')}"
        except (ProjectError, LookupError, AttributeError, TypeError, ValueError):
            before[stage.name] = [], ""  # none, or anybody's
    return before


def _params(result: Result, names: Collection[RowKey], before: _Before) -> Iterator[str]:
    """Yield the params that differ from those `before`, by their last part."""
    row_stages = result.row_stages
    every = {each[0]: each for each in named_params(row_stages, [*(names or result.digests)])}
    short = short_names([*every])
    for name, stage, params, key in every.values():
        value = normal(params.values[key])
        had = [normal(values[key]) for values in before[stage.name][0] if key in values]
        if had and value not in had and tells(name, value):
            yield f"{short[name]}={_cut(f'{value}', _LONGEST_VALUE)}"


def _subject(result: Result, before: _Before) -> str:
    """Return the commit's subject, or after which one nobody has committed the result.

    If that says the same of others, there is also which inputs differ from those `before`.
    """
    origin, top = result.origin, result.project.top
    text, is_alike = origin.subject, origin.is_repeated
    if not origin.is_committed:
        text = f"{UNCOMMITTED}{origin.base[:DIGITS]}" if origin.base else ""
        parents = ask("for-each-ref", "--format=%(parent)", EXPERIMENTS, REFS, cwd=top).split()
        is_alike = parents.count(origin.base) > 1
    elif text.startswith("dvc: "):  # DVC has made it up
        text, is_alike = "", True
    return f"{_cut(text)} {_fitting(_inputs(result, before)) if is_alike else ''}".strip()


def _inputs(result: Result, before: _Before) -> Iterator[str]:
    """Yield the names of files that no stage makes and that were others `before`."""
    for stage in result.scope():
        deps = before[stage.name][1]
        changed = (dep for dep in stage.deps if not dep.makers and dep.md5 not in deps)
        yield from (posixpath.basename(dep.path) for dep in changed if deps)


def _fitting(parts: Iterable[str]) -> str:
    """Return as many different parts as fit, then `…` if some did not."""
    text = ""
    for part in dict.fromkeys(parts):
        if text and len(text) + len(part) >= _LONGEST:
            return f"{text} …"
        text = f"{text} {part}".strip()
    return _cut(text)


def _cut(text: str, longest: int = _LONGEST) -> str:
    text = re.sub(r"\s+", " ", text).strip()
    return text if len(text) <= longest else f"{text[: longest - 1]}…"
