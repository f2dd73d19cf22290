"""The name of a row: what tells it from others, the most telling part first.

These parts stand in it, as far as there are any: the item of a foreach or a matrix, the name that a
person has given to the experiment, and three of the params that differ from those of the parent
commit's dvc.lock. Seven digits of the result's digest end it. It is the same whether the row is
made live or from history.
"""

import posixpath
import re
from collections.abc import Collection, Mapping
from typing import Any

from ..errors import ProjectError
from ..pipeline.keys import named_params, short_names, tells
from ..pipeline.numbers import flatten
from ..pipeline.row import RowKey
from ..pipeline.row_stages import as_key
from ..pipeline.stages import Params, Stage, normal
from ..pipeline.tags import as_text
from ..project.at_commits import stages_in
from ..project.experiment_names import is_generated
from ..project.project import Project
from .result import Result

_MOST_PARAMS = 3
_LONGEST_VALUE, _LONGEST = 30, 92  # characters, of a value and of all but the digits


def words(result: Result, names: Collection[RowKey] = ()) -> str:
    """Return what a name says before the digits, of these members of the row or of all."""
    row_stages, given = result.row_stages, result.origin.experiment
    parts = [
        stage.item
        for name, stage in row_stages.members.items()
        if stage.item and name == as_key(stage.group)
    ]
    parts += [] if is_generated(given) else [given]
    every = {each[0]: each for each in named_params(row_stages, [*(names or result.digests)])}
    short, telling = short_names([*every]), []
    befores: dict[tuple[str, str], Mapping[str, Any]] = {}
    for name, stage, params, key in every.values():
        if (of := (stage.name, params.file)) not in befores:
            befores[of] = _before(result, stage, params)
        value, before = normal(params.values[key]), befores[of]
        if key in before and tells(name, value) and normal(before[key]) != value:
            telling.append(f"{short[name]}={_cut(f'{value}', _LONGEST_VALUE)}")
    found = dict.fromkeys(filter(None, [*parts, *telling[:_MOST_PARAMS]]))
    return as_text(_cut(" ".join(found), _LONGEST))


def _before(result: Result, stage: Stage, params: Params) -> Mapping[str, Any]:
    """Return the values of a stage's params in the parent commit's dvc.lock, by dotted key."""
    locked = _entry(result.project, result.origin.base, stage).get("params")
    for file, values in (locked if isinstance(locked, Mapping) else {}).items():
        # In dvc.lock the path is relative to the stage's working directory.
        is_same = f"/{params.file}".endswith(f"/{re.sub(r'^([.][.]/)+', '', f'{file}')}")
        if is_same and isinstance(values, Mapping):
            return flatten(values)
    return {}


def _entry(project: Project, commit: str, stage: Stage) -> Mapping[str, Any]:
    """Return what the dvc.lock of a commit has of a stage, or {} if that is nothing."""
    folder, _, own = stage.group.rpartition("/")
    text = project.committed(commit, posixpath.join(folder, "dvc.lock")) if commit else None
    try:
        stages = stages_in((text or b"").decode(errors="replace"))
    except ProjectError:
        return {}
    entry = stages.get(f"{own}@{stage.item}" if stage.item else own)
    return entry if isinstance(entry, Mapping) else {}


def _cut(text: str, longest: int) -> str:
    text = re.sub(r"\s+", " ", text).strip()
    return text if len(text) <= longest else f"{text[: longest - 1]}…"
