"""A result as the `Row` that MLflow gets of it, read from DVC and git; nothing is written."""

import hashlib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from ..errors import ProjectError
from ..pipeline.declarations import shown as declared
from ..pipeline.measures import data_of, measures
from ..pipeline.row import DIGITS, NOWHERE, Row, Standing, Wanted, short_digest
from ..pipeline.stages import Stage
from ..pipeline.stored_run import StoredRun
from ..pipeline.tags import BEGUN, CHOSEN, DATA, FOLDER, KEPT, LACKS, SOURCE, STAGE, TREE, text
from . import kept_trees
from .content import params_of, part_of
from .description import description
from .name import changes, words
from .origin import KeptTree, Origin
from .result import Result, State

_LONGEST_TAG = 5000  # characters, in MLflow
_MOST_DECLARED = 400


def wanted(result: Result) -> Wanted:
    """Return what decides the row of a result."""
    every = [declared(result.pipeline, result.row_stages.parts[name]) for name in result.digests]
    found = frozenset[str]().union(*every)
    if len(found) > _MOST_DECLARED:  # one digest stands for all, as a tag could not hold them
        found = frozenset({short_digest(sorted(found))})
    return Wanted(result.digests, found, standing(result.origin))


def standing(origin: Origin) -> Standing:
    """Return where a result of this origin stands in git."""
    rank = 2 if origin.is_committed else 1 if origin.kept and not origin.is_dirty else 0
    return Standing(rank, origin.time // 1000, origin.commit) if rank else NOWHERE


def row_of(
    result: Result,
    has: StoredRun | None = None,
    *,
    kept: KeptTree | None = None,
    notes: Sequence[str] = (),
) -> Row:
    """Return the row of a result, with what a run that `has` some of it lacks.

    `kept` is the commit that has the result, and `notes` say what it lacks. The keys of metrics
    keep the prefix that the run has.
    """
    found, chosen = changes(result, [*result.digests]), "\n".join(result.state.chosen)
    wants, names = wanted(result), [*result.digests]
    new = [n for n in names if not has or has.is_deleted or n not in has.complete]
    if has:
        result = result.with_prefixes({n: p for n, p in has.prefixes.items() if n in names})
        if not (new or has.lacks_content(wants)):
            names = []
    parts = {name: part_of(result, name) for name in names}
    params, wrong = params_of(result)
    tags = {f"{BEGUN}{name}": digest for name, digest in result.digests.items()}
    if data := data_of(result.pipeline, result.row_stages, result.digests):
        tags[DATA] = data[:_LONGEST_TAG]
    if 0 < len(chosen) < _LONGEST_TAG:
        tags[CHOSEN] = chosen
    origin = origin_tags(result.state, result.head)
    if wants.standing.is_experiment:  # its own commit keeps what was kept while it ran
        origin |= kept_tags(result.origin.kept, [*result.digests])
    return Row(
        wanted=wants,
        words=words(result, found),
        digits=(found_by := digits(result)),
        note=description(origin, result.row_stages, found_by[0]),
        time=result.origin.time,
        tags={**tags, **kept_tags(kept, new)},
        origin=origin,
        params=params,
        parts=parts,
        measures=measures(result.pipeline, result.row_stages, parts),
        notes=[*notes, *wrong],
    )


def digits(result: Result) -> list[str]:
    """Return the seven digits that end a row's name, then those by which it is found as well.

    They are those of its last result. If several results are last, as of two evaluations, or what
    no stage makes beside a stage's, they are of all of these, so that no two rows have the same.
    """
    members, above = result.row_stages.members, result.pipeline.above
    makers = [members[name].name for name in result.digests if members[name].command]
    read = {name for maker in makers for name in above(maker)}
    last = [digest for name, digest in result.digests.items() if members[name].name not in read]
    whole = "".join(last)
    if len(last) > 1:
        whole = hashlib.md5(whole.encode(), usedforsecurity=False).hexdigest()
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


def keep(result: Result, root: Path) -> tuple[KeptTree | None, list[str]]:
    """Keep a result as a git tree; return it, and what could not be kept."""
    try:
        kept = kept_trees.of_result(result, root)
    except (ProjectError, OSError) as error:
        return None, [f"the row cannot be restored: {error}"]
    return kept, [
        f"not kept for `dvc-mlflow restore`: {what}" for what in (kept.lacks if kept else ())
    ]


def kept_tags(kept: KeptTree | None, names: Collection[str]) -> Mapping[str, str]:
    """Return the tags that name the tree with the results of these members."""
    if kept is None:
        return {}
    tags = {f"{TREE}{name}": kept.tree for name in names}
    tags |= {f"{KEPT}{name}": kept.commit for name in names}
    return tags | ({LACKS: text("; ".join(kept.lacks))[:_LONGEST_TAG]} if kept.lacks else {})
