"""What a row will get, except models, read from DVC and git before it is sent."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from . import processes, trees
from .content import Content, Input, content_of, params_of
from .errors import ProjectError
from .identity import Row
from .origin import title
from .pipeline import Stage
from .project import Project
from .state import State
from .tags import BEGUN, KEPT, TREE
from .trees import Kept

_LACKS = "tree.lacks"
"""The tag with the files of a checkout that are not in its tree."""


class Draft(NamedTuple):
    """A row before it is sent."""

    title: str
    time: int
    """Milliseconds since 1970."""
    begun: Mapping[str, str]
    """The tags with the digests of its results."""
    origin: Mapping[str, str]
    """The tags that say where its results come from."""
    content: Mapping[str, Content]
    """By the stages' names in the row."""
    kept: Kept | None
    params: Mapping[str, str]
    sources: Mapping[Input, tuple[str, str]]
    """Of each data set, the kind and address of its source."""
    notes: Sequence[str]
    """What cannot be recorded, one line each."""

    def contradicted(self, logged: Mapping[str, str]) -> Iterator[str]:
        """Yield a note on each param for which a script has logged another value."""
        for key, value in self.params.items():
            if (has := logged.get(key, value)) != value:
                yield f"param {key!r}: the script logged {has!r}, DVC has {value!r}"


def read(state: State, row: Row, names: Sequence[str], root: Path) -> Draft:
    """Return the draft of a row with the content of these members; `root` is the main repository.

    Everything else covers all members that have a result.
    """
    wanted, project = state.wanted(row), state.project
    content = {name: content_of(project, state.pipeline, row, name) for name in names}
    kept, notes = keep(state, row, root)
    params, wrong = params_of(row, [*wanted])
    return Draft(
        title(project, row, [*wanted], state.origin),
        state.origin.time,
        {f"{BEGUN}{name}": digest for name, digest in wanted.items()},
        origin_tags(state, row.members[[*wanted][-1]], root),
        content,
        kept,
        params,
        {each: _source(project, each) for some in content.values() for each in some.inputs},
        [*notes, *wrong],
    )


def origin_tags(state: State, head: Stage, root: Path) -> dict[str, str]:
    """Return the tags of a run that say where its results come from."""
    tags = {**state.origin.tags(), **processes.tags(root), "dvc.stage": head.name}
    if state.pipeline.folder:
        tags["folder"] = state.pipeline.folder
    tags["mlflow.source.name"] = head.command.partition("\n")[0][:500]
    return tags


def keep(state: State, row: Row, root: Path) -> tuple[Kept | None, list[str]]:
    """Keep the results of a row as a git tree; return it, and what could not be kept."""
    try:
        kept = trees.of_results(state, row, root)
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
    return tags | ({_LACKS: "; ".join(kept.lacks)[:5000]} if kept.lacks else {})


def _source(project: Project, given: Input) -> tuple[str, str]:
    """Return the kind of a data set's source, and the source as JSON.

    The source is DVC's file of this md5, so it never has other bytes. For a folder, it is the list
    of its files.
    """
    kind, address = project.address(given.md5)
    return kind, json.dumps({"url" if kind == "http" else "uri": address})
