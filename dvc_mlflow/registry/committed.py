"""The commit that has a row's result, and what it calls the row's model."""

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from ..errors import ProjectError
from ..pipeline.lineages import names_recorded
from ..pipeline.naming import model_names
from ..pipeline.stages import Pipeline
from ..project import Past, Project
from ..rows.commits import experiments, published
from ..rows.history import Snapshot, snapshots
from ..rows.result import Result, now_or_none, of


class Committed(NamedTuple):
    """A commit of a branch, a tag or an experiment, and the names of the models in its result."""

    commit: str
    names: Sequence[str]


def find(
    project: Project, digests: Mapping[str, str], makers: Sequence[str], measuring: Sequence[str]
) -> Committed | None:
    """Return the oldest commit whose result a row has, by the digests of the row's results.

    One that names the model of the `makers` comes before others, and a branch's or a tag's before
    an experiment's, which `dvc exp gc` deletes. The result includes that of the stages `measuring`.
    """
    found, now = None, now_or_none(project)
    with Past(project) as past:
        for snapshot in _snapshots(project):
            for result in _results(project, past, snapshot, now):
                has_all = {*measuring} <= result.digests.keys()
                if has_all and result.digests.items() <= digests.items():
                    names = _names(result, makers)
                    if names:
                        return Committed(snapshot.commit, names)
                    found = found or Committed(snapshot.commit, names)
    return found


def _snapshots(project: Project) -> Iterator[Snapshot]:
    """Yield the states of DVC's files at commits that are not the tool's own."""
    for commits in (published(project.top), experiments(project.top)):
        for each in snapshots(project.top, project.folder, project.blobs, commits):
            if not each.origin.is_dirty:
                yield each


def _results(
    project: Project, past: Past, snapshot: Snapshot, now: Pipeline | None
) -> Iterator[Result]:
    try:
        pipeline = past.at(snapshot.commit, snapshot.definitions, snapshot.locks)
    except ProjectError:
        return
    chosen = names_recorded(pipeline, now)
    yield from of(project, pipeline, snapshot.origin, chosen).results()


def _names(result: Result, makers: Sequence[str]) -> list[str]:
    """Return what git's tags call the models that these members of a result make."""
    own = [name for name in makers if name in result.digests]
    found = []
    for stage in (stage for name in own for stage in result.lineage.parts[name]):
        for _, output in result.pipeline.models_of(stage):
            found += model_names(result.pipeline, stage, output)[:1]
    return list(dict.fromkeys(found))
