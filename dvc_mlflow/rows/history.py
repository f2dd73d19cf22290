"""The results of git's history: each once, as the newest commit with it has it.

The oldest commit says who made a result and when, and the newest what is declared of it.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

from ..errors import ProjectError
from ..pipeline.row import NOT_HERE
from ..pipeline.row_stages import names_recorded
from ..pipeline.stages import Pipeline
from ..project.at_commits import ProjectAt
from ..project.files import is_other
from ..project.project import Project
from .commits import Commits, Snapshot, snapshots
from .origin import Origin
from .result import Result, State, state_of

_Digests = frozenset[tuple[str, str]]


@dataclass
class FoundResult:
    """A result that commits have, or the checkout."""

    origin: Origin
    """Where it comes from, as the oldest commit says."""
    result: Result
    snapshot: Snapshot | None
    """The newest state that has it; None for the checkout."""


@dataclass
class History:
    """What the commits of a project have."""

    entries: dict[_Digests, FoundResult] = field(default_factory=dict)
    """By the digests of the results, by the stages' names in their rows."""
    unread: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    """The commits that could not be read, by the reason."""
    left_out: list[tuple[str, str, tuple[str, str]]] = field(default_factory=list)
    """Why numbers of a recorded stage may be in no row, and a commit where that is so; then digest
    and path of the file, if git has it otherwise than dvc.lock."""

    def results(self) -> list[FoundResult]:
        """Return the results, each with its own origin, the newest first.

        What is only a part of another one is in the row of that.
        """
        having: dict[tuple[str, str], list[_Digests]] = defaultdict(list)
        for key, entry in self.entries.items():
            for own in key:
                having[own].append(key)
            state = replace(entry.result.state, origin=entry.origin)
            entry.result = replace(entry.result, state=state)
        near = {key: min((having[own] for own in key), key=len) for key in self.entries}
        whole = [each for key, each in self.entries.items() if not any(key < o for o in near[key])]
        return [*reversed(whole)]

    def add(self, result: Result, snapshot: Snapshot | None) -> None:
        """Take note of a state that has a result; states come oldest first, the checkout last."""
        key = frozenset(result.digests.items())
        new = FoundResult(result.origin, result, snapshot)
        entry = self.entries.setdefault(key, new)
        if result.origin.rank > entry.origin.rank:
            entry.origin = result.origin
        if not (snapshot and snapshot.kept_for):
            entry.result, entry.snapshot = result, snapshot


def history_of(
    project: Project,
    past: ProjectAt,
    commits: Commits,
    now: Pipeline | None,
    progress: Callable[[Sequence[Snapshot]], Iterable[Snapshot]],
    *,
    of: State | None = None,
) -> History:
    """Return what commits have, or only what they have of the results `of` a state.

    Today's pipeline decides what is recorded of earlier ones, and its settings count. `progress`
    passes on the states that are read. Raises `ProjectError`.
    """
    history = History()
    states = snapshots(project.top, project.folder, project.blobs, commits)
    asked = of.results() if of else []
    if of:
        md5s = [*map(_made, asked)]
        read = lru_cache(64)(project.blobs.read)  # most states share most of their locks
        states = [each for each in states if _can_have(map(read, each.locks.values()), md5s)]
    for snapshot in progress(states):
        try:
            pipeline = past.at(snapshot.commit, snapshot.definitions).set_as(now)
        except ProjectError as error:
            # The same text for all commits with this error.
            why = re.sub(r" in revision '\w+'|; `dvc status` says more", "", f"{error}")
            history.unread[why].append(snapshot.commit)
            continue
        state = state_of(project, pipeline, snapshot.origin, names_recorded(pipeline, now))
        for result in state.results():
            # A row's own commit has that row, and others half-way.
            if not snapshot.kept_for or result.head.name in snapshot.kept_for:
                history.add(result, snapshot)
        # Of one state's results nobody asks for it, and each commit's files are read for it.
        for commit in () if of or snapshot.kept_for else snapshot.commits:
            history.left_out += ((why, commit, file) for why, file in _left_out(state, commit))
    if of:
        if not of.commit:
            for result in asked:
                history.add(result, None)
        own = {frozenset(result.digests.items()) for result in asked}
        history.entries = {key: each for key, each in history.entries.items() if key in own}
    return history


def _left_out(state: State, commit: str) -> Iterator[tuple[str, tuple[str, str]]]:
    """Yield why numbers of a recorded stage are in no row: it has no result, or git has others."""
    project = state.project
    for stage in state.stages:
        why, paths = state.reasons.get(stage.name), state.pipeline.metrics_paths(stage)
        if why and (stage.has_result or any(project.committed(commit, path) for path in paths)):
            yield f"stage {stage.name} is not recorded: {why}", ("", "")
    yield from other_numbers(state, commit)


def other_numbers(state: State, commit: str) -> Iterator[tuple[str, tuple[str, str]]]:
    """Yield the metrics files that a commit, or the checkout, has otherwise than dvc.lock."""
    for stage in (stage for stage in state.stages if stage.name in state.digests):
        paths = state.pipeline.metrics_paths(stage)
        for out in (out for out in stage.outs if out.path in paths):
            if is_other(state.project, commit, out):
                why = f"{out.path}: {NOT_HERE}; the row has dvc.lock's numbers"
                yield why, (state.digests[stage.name], out.path)


def _can_have(locks: Iterable[bytes | None], results: list[list[bytes]]) -> bool:
    """Whether the locks of a state have all md5s of one of these results."""
    text = b"".join(lock or b"" for lock in locks)
    return any(all(md5 in text for md5 in md5s) for md5s in results)


def _made(result: Result) -> list[bytes]:
    """Return the md5s of what the stages of a result wrote, as a lock has them."""
    return [out.md5.encode() for stage in result.scope() if stage.command for out in stage.outs]
