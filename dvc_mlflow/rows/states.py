"""What DVC knew in each state of git's history, the oldest first."""

import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from typing import NamedTuple

from ..errors import ProjectError
from ..pipeline.identity import locked
from ..pipeline.inputs import Inputs
from ..pipeline.stages import Pipeline
from ..project import Past, Project
from .commits import Commits
from .history import Snapshot, snapshots
from .origin import Origin
from .result import State


class Read(NamedTuple):
    """A state of the project, as it was read."""

    snapshot: Snapshot | None
    """None for the checkout."""
    origin: Origin
    pipeline: Pipeline
    digests: Mapping[str, str]
    """Of all that dvc.lock has, by stage."""


class States:
    """Reads the states of a project; a result is the same in all that have it."""

    def __init__(self, project: Project, past: Past) -> None:
        self._project, self._past, self._inputs = project, past, Inputs()
        self.unread: dict[str, list[str]] = defaultdict(list)
        """The commits that could not be read, by the reason."""

    def of_commits(
        self, commits: Commits, only: State | None, *, newest_first: bool = False
    ) -> Iterator[Read]:
        """Yield the states of these commits, by default the oldest first.

        With `only`, these are those that may have a result of that state.
        """
        project, wanted = self._project, _md5s(only) if only else set()
        every = snapshots(project.top, project.folder, project.blobs, commits)
        for each in reversed(every) if newest_first else every:
            if wanted and not self._has_any(each, wanted):
                continue
            try:
                found = self._past.at(each.commit, each.definitions, each.locks)
            except ProjectError as error:
                if only is None:  # else it is about other results
                    # The same text for all commits with this error.
                    why = re.sub(r" in revision '\w+'|; `dvc status` says more", "", f"{error}")
                    self.unread[why].append(each.commit)
                continue
            yield self._read(each, each.origin, found)

    def of_checkout(self, state: State) -> Read:
        """Return the state of the checkout."""
        return self._read(None, state.origin, state.pipeline)

    def _read(self, snapshot: Snapshot | None, origin: Origin, found: Pipeline) -> Read:
        pipeline = self._inputs.as_first(found)
        return Read(snapshot, origin, pipeline, locked(pipeline))

    def _has_any(self, snapshot: Snapshot, md5s: Collection[bytes]) -> bool:
        """Whether a dvc.lock of a state has one of these md5s; any may be the state's own."""
        texts = [self._project.blobs.read(blob) or b"" for blob in snapshot.locks.values()]
        return any(md5 in text for text in texts for md5 in md5s)


def _md5s(state: State) -> set[bytes]:
    """Return md5s of which a dvc.lock with one of a state's results has some; {} if any may."""
    own = [stage for stage in state.stages if stage.name in state.locked]
    outs = [[out.md5.encode() for out in stage.outs if stage.command] for stage in own]
    return {md5 for md5s in outs for md5 in md5s} if all(outs) else set()
