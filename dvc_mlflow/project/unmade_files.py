"""What the top of a dvc.yaml declares but no stage makes, as DVCLive without a pipeline does.

It is read as a stage without a command, called by the path of its dvc.yaml: its outputs are the
files of metrics and plots, and the models that a .dvc file tracks; its params are at the top too.
If that dvc.yaml has stages, it comes after the last ones, in their row.
"""

import posixpath
from collections.abc import Collection, Iterator, Sequence
from typing import Any, NamedTuple

from dvc.output import Output as DvcOutput
from dvc.stage import Stage as DvcStage
from dvc_data.hashfile.hash_info import HashInfo
from dvc_data.hashfile.meta import Meta

from ..errors import ProjectError
from ..pipeline.numbers import flatten
from ..pipeline.stages import Dependency, Params, Settings, Stage, overlap
from ..work_tree import RefusedError
from .dvc_repo import parse
from .files import Files
from .hashing import content_md5


class Unmade(NamedTuple):
    """Files that one dvc.yaml declares and no stage makes."""

    stage: Stage
    kept_by_git: Sequence[Any]
    """DVC's objects for its outputs that git keeps."""


def of_file(
    project: Files,
    file: str,
    shown: Sequence[str],
    models: Sequence[str],
    made: Sequence[str],
    last: Sequence[str],
) -> Unmade | None:
    """Return what no stage makes of the metrics, plots and models that one dvc.yaml declares.

    `shown` and `models` are their paths, and `made` the outputs of all stages. It belongs to the
    `last` stages of the file, as if these had made it. Return None if there is nothing of it.
    Raises `ProjectError`.
    """
    paths = [path for path in shown if not any(overlap(path, out) for out in made)]
    if not paths:
        return None
    models = [path for path in models if path not in made]
    name = project._relative(file)
    holder = DvcStage(project._repo, path=file, wdir=project._repo.fs.parent(file))
    tracked = {
        path: out
        for path, out in project._outs.items()
        if any(overlap(path, own) for own in (*paths, *models)) and out.hash_info
    }
    kept = []
    for path, content in sorted(_in_git(project, paths, tracked).items()):
        own = posixpath.relpath(path, posixpath.dirname(name) or ".")
        out = DvcOutput(holder, own, cache=False)
        out.hash_info = HashInfo(out.hash_name, content_md5(content))
        out.meta = Meta(size=len(content))
        kept.append(out)
    if not (kept or any(overlap(path, own) for path in tracked for own in paths)):
        return None
    stage = Stage(
        name=name,
        group=name,
        item="",
        command="",
        frozen=False,
        has_result=True,
        params=tuple(_params(project, file)),
        item_values={},
        deps=tuple(Dependency("", "", (stage,)) for stage in last),
        outs=(*map(project._output, kept), *map(project._output, tracked.values())),
        settings=Settings(prefix=""),
    )
    return Unmade(stage, kept)


def _in_git(project: Files, paths: Collection[str], tracked: Collection[str]) -> dict[str, bytes]:
    found: dict[str, bytes] = {}
    for path in paths:
        found |= project.code(path)
    return {p: c for p, c in found.items() if not any(overlap(p, other) for other in tracked)}


def _params(project: Files, file: str) -> Iterator[Params]:
    for own in project._repo.index._params.get(file, ()):
        path = project._beside(file, str(own))
        try:
            text = project._content(path).decode()
            yield Params(path, (), flatten(parse(text, path) or {}))
        except (FileNotFoundError, RefusedError):
            continue
        except (OSError, ValueError) as error:
            raise ProjectError(f"params {path}: {error}") from None
