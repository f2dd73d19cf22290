"""A result as the `Row` that MLflow gets of it, read from DVC and git; nothing is written."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from ..errors import ProjectError
from ..pipeline.keys import md5_tag
from ..pipeline.measures import data_of, measures
from ..pipeline.row import DIGITS, LONGEST, Row, StoredRun, Wanted, digest_of, md5_of_text
from ..pipeline.stages import Pipeline, Stage
from ..pipeline.tags import DATA, FOLDER, KEPT, LACKS, LOCK, SOURCE, STAGE, TREE, as_text
from . import kept_trees
from .content import params_of, part_of
from .description import description
from .name import words
from .origin import KeptTree
from .result import Result, State


def wanted(result: Result) -> Wanted:
    """Return what decides the row of a result."""
    stages = [stage for name in result.digests for stage in result.row_stages.parts[name]]
    declared = [sorted(result.digests.items()), _declared(result.pipeline, stages)]
    return Wanted(result.digests, result.origin.standing, digest_of(declared))


def _declared(pipeline: Pipeline, stages: Sequence[Stage]) -> list[str]:
    """Return what is declared as metrics, plots and models of some stages."""
    declared: set[object] = set()
    for stage in stages:
        declared |= pipeline.metrics_paths(stage)
        declared |= {(p.path, p.x, p.template, p.header) for p in pipeline.plots_of(stage)}
        declared |= {repr(model) for model, _ in pipeline.models_of(stage)}
    return sorted(map(repr, declared))


def row_of(result: Result, has: StoredRun | None = None, root: Path | None = None) -> Row:
    """Return the row of a result, with what a run that `has` some of it lacks.

    With the main repository's `root`, git keeps what nobody has committed.
    """
    wants, names, notes = wanted(result), [*result.digests], list[str]()
    new = [name for name in names if not has or name not in has.digests]
    tags = {f"{LOCK}{name}": each for name, each in result.digests.items()}
    if root and (new or not (has and has.kept)):
        kept, notes = _keep(result, root)
        tags |= kept_tags(kept)
    if has and not new and not has.lacks_content(wants):
        names = []
    if data := data_of(result.pipeline, result.row_stages, result.digests):
        tags[DATA] = data[:LONGEST]
    origin = origin_tags(result.state, result.head)
    if wants.standing.rank == 1:  # its own commit keeps what was kept while it ran
        origin |= kept_tags(result.origin.kept)
    parts = {name: part_of(result, name) for name in names}
    stages = [stage for name in names for stage in result.row_stages.parts[name]]
    tags |= {md5_tag(out.path): out.md5 for stage in stages for out in stage.outs}
    params, wrong = params_of(result)
    return Row(
        wanted=wants,
        words=words(result),
        digits=(found_by := digits(result)),
        note=description(origin, result.row_stages, found_by[0]),
        time=result.origin.time,
        tags=tags,
        origin=origin,
        params=params,
        parts=parts,
        measures=measures(result.pipeline, result.row_stages, parts),
        notes=[*notes, *wrong],
    )


def digits(result: Result) -> list[str]:
    """Return the seven digits that begin a row's name, then those by which it is found as well.

    They are those of its last result. If several results are last, as of two evaluations, or what
    no stage makes beside a stage's, they are of all of these, so that no two rows have the same.
    """
    members, above = result.row_stages.members, result.pipeline.above
    makers = [members[name].name for name in result.digests if members[name].command]
    read = {name for maker in makers for name in above(maker)}
    last = [digest for name, digest in result.digests.items() if members[name].name not in read]
    whole = md5_of_text("".join(last)) if len(last) > 1 else "".join(last)
    known = [result.state.digests.get(stage.name, "") for stage in result.scope()]
    every = [whole, *reversed([*known, *result.digests.values()])]
    return [*dict.fromkeys(digest[:DIGITS] for digest in every if digest)]


def origin_tags(state: State, head: Stage) -> dict[str, str]:
    """Return the tags of a run that say where its results come from."""
    tags = {**state.origin.tags(state.project.top), STAGE: head.name}
    if state.pipeline.folder:
        tags[FOLDER] = state.pipeline.folder
    if head.command:
        tags[SOURCE] = head.command.partition("\n")[0][:500]
    return tags


def _keep(result: Result, root: Path) -> tuple[KeptTree | None, list[str]]:
    """Keep a result as a git tree; return it, and what could not be kept."""
    try:
        kept = kept_trees.of_result(result, root)
    except (ProjectError, OSError) as error:
        return None, [f"the row cannot be restored: {error}"]
    return kept, [f"not kept for `dvc-mlflow restore`: {what}" for what in kept.lacks]


def kept_tags(kept: KeptTree | None) -> Mapping[str, str]:
    """Return the tags that name the tree with a result."""
    if kept is None:
        return {}
    lacks = as_text("; ".join(kept.lacks))[:LONGEST]
    return {TREE: kept.tree, KEPT: kept.commit} | ({LACKS: lacks} if lacks else {})
