"""What a row will get, except models, read from DVC and git before it is sent."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from .. import processes
from ..errors import ProjectError
from ..pipeline.stages import Stage
from ..pipeline.tags import BEGUN, CHOSEN, FOLDER, KEPT, LACKS, SOURCE, STAGE, TREE, text
from ..project import Project
from . import trees
from .changes import changes
from .content import Content, Input, content_of, params_of
from .origin import Kept
from .result import Result, State
from .shown import shown
from .title import words

_LONGEST_TAG = 5000  # characters, in MLflow


class Gathered(NamedTuple):
    """What a row gets: all that is read before anything is sent."""

    words: str
    """The name of the row without its digits."""
    time: int
    """Milliseconds since 1970."""
    begun: Mapping[str, str]
    """The tags with the digests of its results, and the stages that were chosen."""
    origin: Mapping[str, str]
    """The tags that say where its results come from."""
    content: Mapping[str, Content]
    """By the stages' names in the row."""
    kept: Kept | None
    params: Mapping[str, str]
    sources: Mapping[Input, tuple[str, str]]
    """Of each data set, the kind and address of its source."""
    columns: Sequence[str]
    """What a table of such rows shows, if nobody has chosen its columns."""
    notes: Sequence[str]
    """What cannot be recorded, one line each."""

    def contradicted(self, logged: Mapping[str, str]) -> Iterator[str]:
        """Yield a note on each param for which a script has logged another value."""
        for key, value in self.params.items():
            if (has := logged.get(key, value)) != value:
                yield f"param {key!r}: the script logged {has!r}, DVC has {value!r}"


def gather(result: Result, names: Sequence[str], root: Path) -> Gathered:
    """Return what a row gets, with the content of these members; `root` is the main repository.

    Everything else covers all members that have a result.
    """
    content = {name: content_of(result, name) for name in names}
    kept, notes = keep(result, root)
    params, wrong = params_of(result)
    found = changes(result, [*result.digests])
    begun = {f"{BEGUN}{name}": digest for name, digest in result.digests.items()}
    if len(chosen := "\n".join(result.state.chosen)) in range(1, _LONGEST_TAG):
        begun[CHOSEN] = chosen
    inputs = [each for some in content.values() for each in some.inputs]
    return Gathered(
        words=words(result, found),
        time=result.origin.time,
        begun=begun,
        origin=origin_tags(result.state, result.head, root),
        content=content,
        kept=kept,
        params=params,
        sources={each: source(result.project, each) for each in inputs},
        columns=shown(result, found, params, content),
        notes=[*notes, *wrong],
    )


def origin_tags(state: State, head: Stage, root: Path) -> dict[str, str]:
    """Return the tags of a run that say where its results come from."""
    tags = {**state.origin.tags(), **processes.tags(root), STAGE: head.name}
    if state.pipeline.folder:
        tags[FOLDER] = state.pipeline.folder
    if head.command:
        tags[SOURCE] = head.command.partition("\n")[0][:500]
    return tags


def keep(result: Result, root: Path) -> tuple[Kept | None, list[str]]:
    """Keep a result as a git tree; return it, and what could not be kept."""
    try:
        kept = trees.of_result(result, root)
    except (ProjectError, OSError) as error:
        return None, [f"the row cannot be restored: {error}"]
    return kept, [
        f"not kept for `dvc-mlflow restore`: {what}" for what in (kept.lacks if kept else ())
    ]


def kept_tags(kept: Kept | None, names: Iterable[str]) -> dict[str, str]:
    """Return the tags that name the tree with the results of these members."""
    if kept is None:
        return {}
    tags = {f"{TREE}{name}": kept.tree for name in names}
    tags |= {f"{KEPT}{name}": kept.commit for name in names}
    return tags | ({LACKS: text("; ".join(kept.lacks))[:_LONGEST_TAG]} if kept.lacks else {})


def source(project: Project, given: Input) -> tuple[str, str]:
    """Return the kind of a data set's source, and the source as JSON.

    The source is DVC's file of this md5, so it never has other bytes. For a folder, it is the list
    of its files.
    """
    kind, address = project.address(given.md5)
    return kind, json.dumps({"url" if kind == "http" else "uri": address})
