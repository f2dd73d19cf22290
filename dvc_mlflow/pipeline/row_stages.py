"""Which stages are recorded, and which of them belong in one row: decided by dvc.yaml alone."""

import hashlib
import posixpath
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from .stages import Pipeline, Stage

_NO_MODEL = (".md", ".html", ".csv", ".tsv", ".png", ".svg", ".jpg", ".pdf")


class RowStages(NamedTuple):
    """Stages whose results belong in one row: those of one model, or else of one pipeline."""

    members: Mapping[str, Stage]
    """The recorded stages by their names in the row, each after those that it depends on."""
    parts: Mapping[str, Sequence[Stage]]
    """By the same names: the stage, after unrecorded ones upstream that no earlier part has."""
    scopes: Mapping[str, Sequence[Stage]]
    """By the same names: the stage, after all that are upstream; their params are the row's."""

    def scope(self, names: Iterable[str] | None = None) -> list[Stage]:
        """Return the stages whose params made the results of these members, by default of all."""
        wanted = self.members if names is None else names
        found = {stage.name: stage for name in wanted for stage in self.scopes[name]}
        return list(found.values())

    def with_stages(self, now: Mapping[str, Stage]) -> "RowStages":
        """Return the same with these stages, by their own names, in place of its own."""

        def replaced(every: Mapping[str, Sequence[Stage]]) -> dict[str, list[Stage]]:
            return {name: [now.get(s.name, s) for s in stages] for name, stages in every.items()}

        members = {name: now.get(stage.name, stage) for name, stage in self.members.items()}
        return RowStages(members, replaced(self.parts), replaced(self.scopes))


def live_key(folder: str, row_stages: RowStages) -> str:
    """Return a digest of what a row is for, before it has a result; `folder` is the project's."""
    text = "\n".join([folder, *sorted(stage.name for stage in row_stages.members.values())])
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def as_key(name: str) -> str:
    """Return a stage's name; if MLflow does not allow it in a key, a similar one with a digest."""
    parts = re.sub(r"[^\w/. -]", "_", name).split("/")
    key = "/".join(part if part.strip(".") else "_" for part in parts)[:150]
    digest = hashlib.md5(name.encode(), usedforsecurity=False).hexdigest()
    return name if key == name else f"{key}-{digest[:6]}"


def recorded(pipeline: Pipeline, chosen: Sequence[str] = ()) -> list[Stage]:
    """Return the stages that have rows, each after those that it depends on.

    They are those `chosen` by name; else, if any command has the prefix `dvc-mlflow run`, those
    that have it; else those with metrics, curves or a model, and those beside which lies what no
    stage makes; else, if nothing is declared at all, the last ones.
    """
    key = (recorded, *chosen)
    if key not in pipeline.decided:
        pipeline.decided[key] = [stage.name for stage in _recorded(pipeline, chosen)]
    return [pipeline.stages[name] for name in pipeline.decided[key]]


def names_recorded(pipeline: Pipeline, now: Pipeline | None) -> list[str]:
    """Return the names of the stages of an earlier pipeline that are recorded.

    They are its own and those of today, as an earlier commit may have declared less; where today's
    have the prefix, only those, as earlier commits had none.
    """
    if now is None:
        return []
    known = {stage.group for stage in pipeline.stages.values()}
    today = [stage.group for stage in recorded(now) if stage.group in known]
    if today and any(stage.is_prefixed for stage in now.stages.values()):
        return [*dict.fromkeys(today)]
    own = [] if today and declares_nothing(pipeline) else recorded(pipeline)
    return [*dict.fromkeys([*today, *(stage.group for stage in own)])]


def declares_nothing(pipeline: Pipeline) -> bool:
    """Whether no stage has the prefix, metrics, curves or a model."""
    return not any(_is_shown(pipeline, stage) for stage in pipeline.stages.values())


def _recorded(pipeline: Pipeline, chosen: Sequence[str]) -> list[Stage]:
    stages = list(pipeline.stages.values())
    if chosen:
        return [stage for stage in stages if {stage.name, stage.group} & {*chosen}]
    if prefixed := [stage for stage in stages if stage.is_prefixed]:
        return prefixed
    if shown := [stage for stage in stages if _is_shown(pipeline, stage)]:
        beside = {name for s in shown if not s.command for name in pipeline.makers(s)}
        return [stage for stage in stages if stage in shown or stage.name in beside]
    read = frozenset[str]().union(*(pipeline.above(stage.name) for stage in stages))
    return [stage for stage in stages if stage.name not in read]


def _is_shown(pipeline: Pipeline, stage: Stage) -> bool:
    return (
        stage.is_prefixed
        or bool(pipeline.metrics_of(stage))
        or draws_curves(pipeline, stage)
        or _declares(pipeline, stage)
    )


def divided(pipeline: Pipeline, stages: Sequence[Stage]) -> list[RowStages]:
    """Divide the recorded stages by dvc.yaml alone.

    A row is about one model: the stage that makes it, what is recorded upstream, and what is
    recorded downstream up to the next model. A stage in which several models meet, such as a
    comparison, begins one without them. A stage with curves and an item of a foreach or a matrix
    begin one, too, unless one begins upstream. All other stages that are connected are one.
    """
    names = [stage.name for stage in stages]
    key = (divided, *names)
    if key not in pipeline.decided:
        pipeline.decided[key] = [*_divided(pipeline, stages)]
    return [_row_stages(pipeline, division) for division in pipeline.decided[key]]


class _Division(NamedTuple):
    """The same by the names of the stages."""

    members: Mapping[str, str]
    """The names in the row, by the stages' own."""
    parts: Mapping[str, Sequence[str]]
    """By the stages' own names, like `scopes`."""
    scopes: Mapping[str, Sequence[str]]


def _divided(pipeline: Pipeline, stages: Sequence[Stage]) -> Iterator[_Division]:
    """Yield the divisions, each head's before those of what is merely connected."""
    heads: dict[str, list[Stage]] = {}
    meetings = set()
    for stage in stages:
        above = pipeline.nearest(stage, (pipeline.stages[name] for name in heads))
        begins = (stage.item or draws_curves(pipeline, stage)) and not above
        if len(above) > 1:
            meetings.add(stage.name)
        if len(above) > 1 or begins or makes_model(pipeline, stage):
            heads[stage.name] = [stage]
        elif above:
            heads[above[0].name].append(stage)
    placed = set()
    for head, own in heads.items():
        names = {stage.name for stage in own}
        if head not in meetings:
            names |= names.union(*(pipeline.above(name) for name in names))
        members = [stage for stage in stages if stage.name in names]
        placed |= {stage.name for stage in members}
        yield _division(pipeline, members, stages, pipeline.stages[head])
    rest = [stage for stage in stages if stage.name not in placed]
    for connected in _connected(pipeline, rest):
        names = connected.union(*(pipeline.above(name) for name in connected))
        members = [stage for stage in stages if stage.name in names]
        yield _division(pipeline, members, stages, members[-1])


def _division(
    pipeline: Pipeline, own: Sequence[Stage], recorded: Sequence[Stage], head: Stage
) -> _Division:
    groups = Counter(stage.group for stage in own)
    others = {stage.name for stage in recorded}
    members, parts, scopes = {}, {}, {}
    seen: set[str] = set()
    for stage in own:
        # Items that share a row, now or once dvc.yaml has more of them, keep the item in the name.
        shared = (stage is not head and not head.item) or groups[stage.group] > 1
        members[stage.name] = as_key(stage.label if shared else stage.group)
        upstream = pipeline.above(stage.name) if stage.command else frozenset[str]()
        beyond = frozenset[str]().union(*(pipeline.above(name) for name in upstream & others))
        scope = [name for name in pipeline.stages if name in upstream]
        first = [name for name in scope if name not in others | seen | beyond]
        parts[stage.name], scopes[stage.name] = [*first, stage.name], [*scope, stage.name]
        seen |= {*scope, stage.name}
    return _Division(members, parts, scopes)


def _row_stages(pipeline: Pipeline, division: _Division) -> RowStages:
    known = pipeline.stages

    def stages(names: Mapping[str, Sequence[str]]) -> dict[str, list[Stage]]:
        return {division.members[own]: [known[n] for n in among] for own, among in names.items()}

    members = {name: known[own] for own, name in division.members.items()}
    return RowStages(members, stages(division.parts), stages(division.scopes))


def _connected(pipeline: Pipeline, stages: Sequence[Stage]) -> list[set[str]]:
    groups: list[set[str]] = []
    for stage in stages:
        above = pipeline.above(stage.name)
        near = [group for group in groups if not group.isdisjoint(above)]
        groups = [group for group in groups if group not in near]
        groups.append({stage.name}.union(*near))
    return groups


def makes_model(pipeline: Pipeline, stage: Stage) -> bool:
    """Whether a stage makes a model: one is declared, or an output has `model` in its name."""
    plots = [plot.path for plot in pipeline.plots]
    names = [
        posixpath.basename(out.path).lower()
        for out in stage.outs
        if not out.metric and out.path not in plots and out.path not in pipeline.metrics
    ]
    named = any("model" in name and not name.endswith(_NO_MODEL) for name in names)
    return named or _declares(pipeline, stage)


def _declares(pipeline: Pipeline, stage: Stage) -> bool:
    return any(pipeline.models_of(stage))


def draws_curves(pipeline: Pipeline, stage: Stage) -> bool:
    """Whether a stage writes curves."""
    return any(plot.draws_lines for plot in pipeline.plots_of(stage))
