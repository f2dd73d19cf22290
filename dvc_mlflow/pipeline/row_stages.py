"""Which stages are recorded, which of them share a row, and by which digests results are known.

dvc.yaml and dvc.lock alone decide it, never the order in which stages ran.
"""

import json
import posixpath
from collections import Counter
from collections.abc import Collection, Iterable, Sequence, Set
from typing import NamedTuple

from .row import RowKey, allowed_key, md5_of_text
from .stages import Pipeline, Stage

_NO_MODEL = (".md", ".html", ".csv", ".tsv", ".png", ".svg", ".jpg", ".pdf")


class RowStages(NamedTuple):
    """Stages whose results belong in one row: those of one model, or else of one pipeline."""

    members: dict[RowKey, Stage]
    """The recorded stages by their names in the row, each after those that it depends on."""
    parts: dict[RowKey, Sequence[Stage]]
    """By the same names: the stage, after unrecorded ones upstream that no earlier part has."""
    scopes: dict[RowKey, Sequence[Stage]]
    """By the same names: the stage, after all that are upstream; their params are the row's."""

    def scope(self, names: Iterable[RowKey] | None = None) -> list[Stage]:
        """Return the stages whose params made the results of these members, by default of all."""
        wanted = self.members if names is None else names
        found = {stage.name: stage for name in wanted for stage in self.scopes[name]}
        return list(found.values())

    def last(self, names: Iterable[RowKey] | None = None) -> Stage:
        """Return the last of these members, by default of all: one with a command, if any has."""
        found = [self.members[name] for name in (self.members if names is None else names)]
        return ([stage for stage in found if stage.command] or found)[-1]


def live_key(folder: str, row_stages: RowStages) -> str:
    """Return a digest of what a row is for, before it has a result; `folder` is the project's."""
    text = "\n".join([folder, *sorted(stage.name for stage in row_stages.members.values())])
    return md5_of_text(text)


def as_key(name: str) -> RowKey:
    """Return a stage's name; if MLflow does not allow it in a key, a similar one with a digest."""
    key = allowed_key(name, 150)
    return RowKey(name if key == name else f"{key}-{md5_of_text(name)[:6]}")


def recorded(pipeline: Pipeline, names: Collection[str] = ()) -> list[Stage]:
    """Return the stages that have rows, each after those that it depends on.

    They are those with these names, if there are any; else those that dvc.yaml chooses, by
    `meta.mlflow.record` or by `dvc-mlflow run` in a command; else those with metrics, curves or a
    model, and those beside which lies what no stage makes; else the last ones.
    """
    stages = [*pipeline.stages.values()]
    if names:
        return [stage for stage in stages if stage.group in names]
    if chosen := [stage for stage in stages if stage.is_chosen]:
        return chosen
    if shown := [stage for stage in stages if _is_shown(pipeline, stage)]:
        beside = {name for s in shown if not s.command for name in pipeline.makers(s)}
        return [stage for stage in stages if stage in shown or stage.name in beside]
    read = frozenset[str]().union(*(pipeline.above(stage.name) for stage in stages))
    return [stage for stage in stages if stage.name not in read]


def names_recorded(pipeline: Pipeline, now: Pipeline | None) -> list[str]:
    """Return the names of the stages of an earlier pipeline that are recorded.

    They are its own and those of today, as an earlier commit may have declared less; where today's
    dvc.yaml chooses some, only those.
    """
    if now is None:
        return []
    known = {stage.group for stage in pipeline.stages.values()}
    today = [stage.group for stage in recorded(now) if stage.group in known]
    if today and any(stage.is_chosen for stage in now.stages.values()):
        return [*dict.fromkeys(today)]
    own = [] if today and declares_nothing(pipeline) else recorded(pipeline)
    return [*dict.fromkeys([*today, *(stage.group for stage in own)])]


def declares_nothing(pipeline: Pipeline) -> bool:
    """Whether no stage is chosen, or has metrics, curves or a model."""
    stages = pipeline.stages.values()
    return not any(stage.is_chosen or _is_shown(pipeline, stage) for stage in stages)


def _is_shown(pipeline: Pipeline, stage: Stage) -> bool:
    return (
        bool(pipeline.metrics_paths(stage) and not pipeline.are_likely)
        or draws_curves(pipeline, stage)
        or any(pipeline.models_of(stage))
    )


def divided(pipeline: Pipeline, stages: Sequence[Stage]) -> list[RowStages]:
    """Divide the recorded stages by dvc.yaml alone, each head's before what is merely connected.

    A row is about one model: the stage that makes it, what is recorded upstream, and what is
    recorded downstream up to the next model. A stage in which several models meet, such as a
    comparison, begins one without them. A stage with curves and an item of a foreach or a matrix
    begin one, too, unless one begins upstream. All other stages that are connected are one.
    """
    heads: dict[str, set[str]] = {}
    meetings, rows, placed = set(), [], set[str]()
    for stage in stages:
        above = pipeline.nearest(stage, (pipeline.stages[name] for name in heads))
        begins = (stage.item or draws_curves(pipeline, stage)) and not above
        if len(above) > 1:
            meetings.add(stage.name)
        if len(above) > 1 or begins or makes_model(pipeline, stage):
            heads[stage.name] = {stage.name}
        elif above:
            heads[above[0].name].add(stage.name)
    for head, names in heads.items():
        upstream = set() if head in meetings else names.union(*map(pipeline.above, names))
        rows.append(_row_stages(pipeline, names | upstream, stages, pipeline.stages[head]))
        placed |= {stage.name for stage in rows[-1].members.values()}
    for names in _connected(pipeline, [stage for stage in stages if stage.name not in placed]):
        rows.append(_row_stages(pipeline, names.union(*map(pipeline.above, names)), stages))
    return rows


def _row_stages(
    pipeline: Pipeline, names: Set[str], recorded: Sequence[Stage], head: Stage | None = None
) -> RowStages:
    members = [stage for stage in recorded if stage.name in names]
    head = head or members[-1]
    groups = Counter(stage.group for stage in members)
    others, seen = {stage.name for stage in recorded}, set[str]()
    row_stages = RowStages({}, {}, {})
    for stage in members:
        # Items that share a row, now or once dvc.yaml has more of them, keep the item in the name.
        shared = (stage is not head and not head.item) or groups[stage.group] > 1
        name = as_key(stage.label if shared else stage.group)
        upstream = pipeline.above(stage.name) if stage.command else frozenset[str]()
        beyond = frozenset[str]().union(*map(pipeline.above, upstream & others))
        scope = [each for each in pipeline.stages.values() if each.name in upstream]
        first = [each for each in scope if each.name not in others | seen | beyond]
        row_stages.members[name] = stage
        row_stages.parts[name], row_stages.scopes[name] = [*first, stage], [*scope, stage]
        seen |= {*upstream, stage.name}
    return row_stages


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
    others = {*pipeline.metrics, *(plot.path for plot in pipeline.plots)}
    names = [posixpath.basename(o.path).lower() for o in stage.outs if o.path not in others]
    named = any("model" in name and not name.endswith(_NO_MODEL) for name in names)
    return named or any(pipeline.models_of(stage))


def draws_curves(pipeline: Pipeline, stage: Stage) -> bool:
    """Whether a stage writes curves."""
    return any(plot.draws_lines for plot in pipeline.plots_of(stage))


def reasons_without(pipeline: Pipeline) -> dict[str, str]:
    """Return the stages that have no result, each with the reason.

    A stage has none if dvc.lock has no entry for it, if what it has read is not what the stages
    upstream have written since, or if one of those has none.
    """
    reasons: dict[str, str] = {}
    for stage in pipeline.stages.values():
        outdated = () if stage.frozen else [dep for dep in stage.deps if dep.outdated]
        lacking = [name for name in pipeline.makers(stage) if name in reasons and stage.command]
        if not stage.has_result:
            reasons[stage.name] = "dvc.lock has no result of it"
        elif lacking:
            reasons[stage.name] = f"stage {lacking[0]}, upstream of it, must run first"
        elif outdated:
            by = f"{' and '.join(outdated[0].makers)} has written"
            reasons[stage.name] = f"it has read a different {outdated[0].path} than {by}"
    return reasons


def locked_digests(pipeline: Pipeline) -> dict[str, str]:
    """Return the digest of each stage that dvc.lock has, and all that are upstream of it.

    It includes those that have read something else than the stages
    upstream have written since. Recording and restoring both know a result by this digest.
    """
    digests: dict[str, str] = {}
    for stage in pipeline.stages.values():
        # What no stage makes lies beside the last stages, and does not come from them.
        makers = pipeline.makers(stage) if stage.command else ()
        if stage.has_result and all(name in digests for name in makers):
            above = sorted(digests[name] for name in makers)
            digests[stage.name] = _digest(pipeline.folder, stage, above)
    return digests


def _digest(folder: str, stage: Stage, above: Sequence[str]) -> str:
    """Return the identity of a result: its params and outputs, and those of all stages upstream.

    Neither code nor the command counts: if they make the same bytes, it is the same result.
    """
    text = f"[{json.dumps(folder)}, {stage.content}, {json.dumps(above)}]"
    return md5_of_text(text)
