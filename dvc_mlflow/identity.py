"""What a row is: which results it holds, by which digests it is known, and where a result goes.

All of it is a function of dvc.yaml and dvc.lock, never of the order in which stages ran. Recording
after the fact and while a stage runs use the same functions.
"""

import hashlib
import json
import posixpath
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from .pipeline import Pipeline, Stage
from .prefix import is_prefixed

_NO_MODEL = (".md", ".html", ".csv", ".tsv", ".png", ".svg", ".jpg", ".pdf")


class Row(NamedTuple):
    """The results that belong together: those of one model, or else of one pipeline."""

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


@dataclass(frozen=True)
class Known:
    """A run in the store, by the results that it holds."""

    run_id: str
    begun: Mapping[str, str]
    """Digests by stage: what the run is for."""
    complete: Mapping[str, str]
    """Digests by stage: what it has."""
    is_deleted: bool = False
    is_open: bool = False
    """Whether a process is at work on it."""
    n_models: int = 0


class Place(NamedTuple):
    """Where results go: the run that has them, the one that they join, or neither: a new one."""

    has: Known | None = None
    joins: Known | None = None


def results(pipeline: Pipeline) -> tuple[dict[str, str], dict[str, str]]:
    """Return the digest of each stage's result, and why the other stages have none.

    A stage has none if dvc.lock has no entry for it, if what it has read is not what the stages
    upstream have written since, or if one of those has none.
    """
    digests: dict[str, str] = {}
    reasons: dict[str, str] = {}
    for stage in pipeline.stages.values():
        makers = pipeline.makers(stage)
        outdated = () if stage.frozen else [dep for dep in stage.deps if dep.outdated]
        lacking = [name for name in makers if name not in digests]
        if not stage.has_result:
            reasons[stage.name] = "dvc.lock has no result of it"
        elif lacking:
            reasons[stage.name] = f"stage {lacking[0]}, upstream of it, must run first"
        elif outdated:
            by = f"{' and '.join(outdated[0].makers)} has written"
            reasons[stage.name] = f"it has read a different {outdated[0].path} than {by}"
        else:
            above = sorted(digests[name] for name in makers)
            digests[stage.name] = _digest(pipeline.folder, stage, above)
    return digests, reasons


def _digest(folder: str, stage: Stage, above: Sequence[str]) -> str:
    """Return the identity of a result: its params and outputs, and those of all stages upstream.

    Neither code nor the command counts: if they make the same bytes, it is the same result.
    """
    content = [
        folder,
        stage.name,
        {params.file: normal(dict(params.values)) for params in stage.params},
        {out.path: out.md5 for out in stage.outs},
        {dep.path: dep.md5 for dep in stage.deps if dep.is_data or dep.is_outside},
        above,
    ]
    text = json.dumps(content, sort_keys=True, default=str)
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def normal(value: Any) -> Any:
    """Return a value in one form for all YAML readers: 25.0 becomes 25."""
    if isinstance(value, Mapping):
        return {str(key): normal(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [normal(each) for each in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def as_key(name: str) -> str:
    """Return a stage's name; if MLflow does not allow it in a key, a similar one with a digest."""
    parts = re.sub(r"[^\w/. -]", "_", name).split("/")
    key = "/".join(part if part.strip(".") else "_" for part in parts)[:150]
    digest = hashlib.md5(name.encode(), usedforsecurity=False).hexdigest()
    return name if key == name else f"{key}-{digest[:6]}"


def recorded(pipeline: Pipeline, chosen: Sequence[str] = ()) -> list[Stage]:
    """Return the stages that have rows, each after those that it depends on.

    They are those `chosen` by name; else, if any command has the prefix `dvc-mlflow run`, those
    that have it; else those with metrics, curves or a model.
    """
    stages = list(pipeline.stages.values())
    if chosen:
        return [stage for stage in stages if {stage.name, stage.group} & {*chosen}]
    if prefixed := [stage for stage in stages if is_prefixed(stage.command)]:
        return prefixed
    return [
        stage
        for stage in stages
        if pipeline.metrics_of(stage)
        or _draws_curves(pipeline, stage)
        or _declares(pipeline, stage)
    ]


def rows(pipeline: Pipeline, stages: Sequence[Stage]) -> list[Row]:
    """Divide the recorded stages into rows, by dvc.yaml alone.

    A row is about one model: the stage that makes it, what is recorded upstream, and what is
    recorded downstream up to the next model. A stage in which several models meet, such as a
    comparison, begins a row without them. A stage with curves and an item of a foreach or a matrix
    begin one, too, unless a row begins upstream. All other stages that are connected are one row.
    """
    heads: list[Stage] = []
    meetings = set()
    row_of: dict[str, list[Stage]] = {}
    for stage in stages:
        above = pipeline.nearest(stage, heads)
        begins = (stage.item or _draws_curves(pipeline, stage)) and not above
        if len(above) > 1:
            meetings.add(stage.name)
        if len(above) > 1 or begins or makes_model(pipeline, stage):
            heads.append(stage)
            row_of[stage.name] = [stage]
        elif above:
            row_of[above[0].name].append(stage)
    found = []
    for head in heads:
        own = row_of[head.name]
        if head.name not in meetings:
            own = [s for s in stages if s in own or any(pipeline.is_upstream(s, o) for o in own)]
        found.append(_row(pipeline, own, stages, head))
    placed = {stage.name for row in found for stage in row.members.values()}
    rest = [stage for stage in stages if stage.name not in placed]
    for connected in _connected(pipeline, rest):
        own = [
            s
            for s in stages
            if s in connected or any(pipeline.is_upstream(s, c) for c in connected)
        ]
        found.append(_row(pipeline, own, stages, own[-1]))
    return found


def place(wanted: Mapping[str, str], known: Iterable[Known]) -> Place:
    """Return where the results of a row go, given the runs in the store, oldest first.

    A run has them if it has each with the same digest. They join a run only if all that it has or
    has begun is among them, so that no run ever mixes results that were in no dvc.lock together.
    """
    runs = list(known)
    has = [run for run in runs if wanted.items() <= run.complete.items()]
    has += [run for run in runs if run.is_deleted and wanted.items() <= run.begun.items()]
    if has:
        return Place(has=min(has, key=lambda run: run.is_deleted))
    free = [run for run in runs if not (run.is_deleted or run.is_open)]
    joins = [run for run in free if {**run.begun, **run.complete}.items() <= wanted.items()]
    return Place(joins=max(joins, key=lambda run: len(run.begun), default=None))


def _row(pipeline: Pipeline, own: Sequence[Stage], recorded: Sequence[Stage], head: Stage) -> Row:
    groups = [stage.group for stage in own]
    members, parts, scopes = {}, {}, {}
    seen: set[str] = set()
    for stage in own:
        # Items that share a row, now or once dvc.yaml has more of them, keep the item in the name.
        shared = (stage is not head and not head.item) or groups.count(stage.group) > 1
        name = as_key(stage.label if shared else stage.group)
        upstream = pipeline.upstream(stage)
        first = [r for r in recorded if r in upstream]
        above = [
            s
            for s in upstream
            if s not in recorded
            and s.name not in seen
            and not any(pipeline.is_upstream(s, of=r) for r in first)
        ]
        members[name], parts[name] = stage, [*above, stage]
        scopes[name] = [*upstream, stage]
        seen |= {s.name for s in scopes[name]}
    return Row(members, parts, scopes)


def _connected(pipeline: Pipeline, stages: Sequence[Stage]) -> list[list[Stage]]:
    groups: list[list[Stage]] = []
    for stage in stages:
        near = [g for g in groups if any(pipeline.is_upstream(s, of=stage) for s in g)]
        groups = [g for g in groups if g not in near]
        groups.append([s for g in near for s in g] + [stage])
    return groups


def _declares(pipeline: Pipeline, stage: Stage) -> bool:
    return any(pipeline.models_of(stage))


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


def _draws_curves(pipeline: Pipeline, stage: Stage) -> bool:
    return any(plot.draws_lines for plot in pipeline.plots_of(stage))
