"""What DVC knew in each state of git's history."""

import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence, Set
from typing import NamedTuple

from ..errors import ProjectError
from ..pipeline.declarations import DataInputs
from ..pipeline.digests import locked_digests
from ..pipeline.stages import Pipeline, Stage
from ..project import Project, ProjectAt, entry_texts
from .commits import Commits
from .origin import Origin
from .result import State
from .snapshots import Snapshot, snapshots

_FIRST, _MORE = 1, 4
"""States in the first round, and how many times as many are in the next."""
_MD5 = re.compile(r"\b[0-9a-f]{32}\b")


class PipelineAt(NamedTuple):
    """A state of the project, as it was read."""

    snapshot: Snapshot | None
    """None for the checkout."""
    origin: Origin
    pipeline: Pipeline
    digests: Mapping[str, str]
    """Of all that dvc.lock has, by stage."""


class Round(NamedTuple):
    """Results that can be recorded together."""

    states: Sequence[PipelineAt]
    """All that have one of them, the oldest first."""
    digests: Set[str]
    """Those of the stages' results that are meant; the states can have others."""


class PastResults:
    """Reads the states of a project; a result is the same in all that have it.

    `progress` is called with the number of states to read, and with 0 for each one that is read.
    """

    def __init__(
        self,
        project: Project,
        past: ProjectAt,
        progress: Callable[[int], object],
    ) -> None:
        self._project, self._past, self._progress = project, past, progress
        self._snapshots: Sequence[Snapshot] = ()
        self._having: Mapping[str, set[tuple[int, str]]] = {}
        """The snapshots that have the md5 of an output, with the text of its entry in dvc.lock."""
        self._shared: dict[tuple[frozenset[str], bool], Set[int]] = {}
        self._pipelines: dict[int, Pipeline | None] = {}
        self.unread: dict[str, list[str]] = defaultdict(list)
        """The commits that could not be read, by the reason."""

    def rounds(
        self,
        commits: Commits,
        recorded: Callable[[Pipeline], Sequence[Stage]],
        *,
        at_once: bool = False,
    ) -> Iterator[Round]:
        """Yield the results of these commits, the newest first, or `at_once`.

        A round is of a few states, and of all others that decide what a result of these is: those
        that can have the same results of a stage that is `recorded`, and of another one the first
        of each dvc.yaml.
        """
        self._read_snapshots(commits)
        # Rows' own commits come last: they also have states between a committed result's stages.
        every = range(len(self._snapshots))
        self._progress(len(every))
        newest = sorted(every, key=lambda i: (self._snapshots[i].origin.is_dirty, -i))
        size = len(newest) if at_once else _FIRST
        while newest or at_once:
            own, newest, size, at_once = newest[:size], newest[size:], size * _MORE, False
            pipelines = [found for i in own if (found := self._pipeline(i))]
            there = {*own}.union(*(self._sharing(each, recorded(each)) for each in pipelines))
            if 2 * len(there) > len(every):
                there, own, newest = {*every}, [*every], []
            read, names = self._pipelines_at(there), {self._snapshots[i].commit for i in own}
            mine = [each for each in read if each.snapshot and each.snapshot.commit in names]
            yield Round(read, {digest for each in mine for digest in each.digests.values()})

    def round_of(self, state: State, commits: Commits) -> Round:
        """Return the round of one state, with those of the commits that decide its results."""
        self._read_snapshots(commits)
        there = self._sharing(state.pipeline, state.stages)
        self._progress(len(there))
        *read, own = self._pipelines_at(there, state)
        is_checkout = not state.commit
        return Round([*read, own] if is_checkout else read, {*own.digests.values()})

    def of_checkout(self, state: State) -> Round:
        """Return the round of the checkout alone."""
        own = _pipeline_at(None, state.origin, state.pipeline)
        return Round([own], {*own.digests.values()})

    def _read_snapshots(self, commits: Commits) -> None:
        project = self._project
        self._snapshots = snapshots(project.top, project.folder, project.blobs, commits)
        self._having, self._shared = self._by_md5(), {}

    def _pipelines_at(self, there: Collection[int], last: State | None = None) -> list[PipelineAt]:
        """Return these states and a last one; in all, data is what it was first."""
        inputs, found = DataInputs(), []
        for i in sorted(there):
            if pipeline := self._pipeline(i):
                snapshot = self._snapshots[i]
                found.append(_pipeline_at(snapshot, snapshot.origin, inputs.as_first(pipeline)))
        if last:
            found.append(_pipeline_at(None, last.origin, inputs.as_first(last.pipeline)))
        return found

    def _pipeline(self, i: int) -> Pipeline | None:
        """Return the pipeline of a snapshot, or None if it cannot be read."""
        if i not in self._pipelines:
            each = self._snapshots[i]
            try:
                found = self._past.at(each.commit, each.definitions, each.locks)
            except ProjectError as error:
                found = None
                # The same text for all commits with this error.
                why = re.sub(r" in revision '\w+'|; `dvc status` says more", "", f"{error}")
                self.unread[why].append(each.commit)
            self._pipelines[i] = found
            self._progress(0)
        return self._pipelines[i]

    def _by_md5(self) -> Mapping[str, set[tuple[int, str]]]:
        entries: dict[str, dict[str, str]] = {}
        md5s: dict[str, set[str]] = {}
        found: dict[str, set[tuple[int, str]]] = defaultdict(set)
        for i, each in enumerate(self._snapshots):
            for blob in each.locks.values():
                if blob not in entries:
                    text = (self._project.blobs.read(blob) or b"").decode(errors="replace")
                    entries[blob] = entry_texts(text)
                for text, outs in entries[blob].items():
                    if text not in md5s:
                        md5s[text] = {*_MD5.findall(outs)}
                    for md5 in md5s[text]:
                        found[md5].add((i, text))
        return found

    def _sharing(self, pipeline: Pipeline, recorded: Sequence[Stage]) -> Set[int]:
        """Return the snapshots that decide what the results of a pipeline are."""
        names, found = {stage.name for stage in recorded}, set[int]()
        for stage in (stage for stage in pipeline.stages.values() if stage.has_result):
            is_own = stage.name in names
            if is_own or stage.outs:  # on others nothing depends
                found |= self._having_all(_md5s(stage), all_of_them=is_own)
        return found

    def _having_all(self, md5s: frozenset[str], *, all_of_them: bool) -> Set[int]:
        """Return the snapshots with these md5s in one entry, or only the first of each dvc.yaml."""
        key = md5s, all_of_them
        if key not in self._shared:
            if not md5s:  # nothing tells where it is
                found = {*range(len(self._snapshots))}
            else:
                there = set.intersection(*(self._having.get(md5, set()) for md5 in md5s))
                first: dict[object, int] = {}
                for i, text in sorted(there):
                    first_of = self._snapshots[i].definitions, text
                    first.setdefault(i if all_of_them else first_of, i)
                found = {*first.values()}
            self._shared[key] = found
        return self._shared[key]


def _pipeline_at(snapshot: Snapshot | None, origin: Origin, pipeline: Pipeline) -> PipelineAt:
    return PipelineAt(snapshot, origin, pipeline, locked_digests(pipeline))


def _md5s(stage: Stage) -> frozenset[str]:
    """Return md5s by which the entry of a result is found; none if nothing tells where it is."""
    found = [_MD5.match(out.md5) for out in stage.outs if stage.command]
    return frozenset(each[0] for each in found if each)
