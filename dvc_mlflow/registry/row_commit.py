"""The commit that has a row's result, and what it calls the row's model."""

from collections.abc import Iterator, Mapping, Sequence, Set
from typing import NamedTuple

from ..errors import ProjectError
from ..pipeline.keys import model_names
from ..pipeline.row_stages import names_recorded
from ..project import Project, ProjectAt
from ..rows.commits import experiments, published
from ..rows.result import Result, now_or_none, of
from ..rows.snapshots import Snapshot, snapshots
from .promotion_rule import PromotionRule


class RowCommit(NamedTuple):
    """A commit of a branch, a tag or an experiment, and the names of the models in its result."""

    commit: str
    names: Sequence[str]


def find(
    project: Project, digests: Mapping[str, str], rule: PromotionRule, md5s: Set[str]
) -> RowCommit | None:
    """Return the oldest commit whose result a row has, by the digests of the row's results.

    One that names the row's model comes before others, and a branch's or a tag's before an
    experiment's, which `dvc exp gc` deletes. The result includes that of the stages that measure;
    `md5s` are those of the model.
    """
    found, now = None, now_or_none(project)
    with ProjectAt(project) as past:
        for snapshot in _snapshots(project, md5s):
            try:
                pipeline = past.at(snapshot.commit, snapshot.definitions, snapshot.locks)
            except ProjectError:
                continue
            chosen = names_recorded(pipeline, now)
            for result in of(project, pipeline, snapshot.origin, chosen).results():
                has_all = {*rule.measuring} <= result.digests.keys()
                if has_all and result.digests.items() <= digests.items():
                    if names := _names(result, rule.makers):
                        return RowCommit(snapshot.commit, names)
                    found = found or RowCommit(snapshot.commit, [])
    return found


def _snapshots(project: Project, md5s: Set[str]) -> Iterator[Snapshot]:
    """Yield the states of DVC's files with these md5s, at commits that are not the tool's own."""
    for commits in (published(project.top), experiments(project.top)):
        for each in snapshots(project.top, project.folder, project.blobs, commits):
            locks = b"".join(project.blobs.read(blob) or b"" for blob in each.locks.values())
            if not each.origin.is_dirty and all(md5.encode() in locks for md5 in md5s):
                yield each


def _names(result: Result, makers: Sequence[str]) -> list[str]:
    """Return what git's tags call the models that these members of a result make."""
    own = [name for name in makers if name in result.digests]
    found = []
    for stage in (stage for name in own for stage in result.row_stages.parts[name]):
        for _, output in result.pipeline.models_of(stage):
            found += model_names(result.pipeline, stage, output)[:1]
    return list(dict.fromkeys(found))
