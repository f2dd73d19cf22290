"""What is new in a repository: a dvc.lock that has changed, an experiment, a commit, a tag."""

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence, Set
from pathlib import Path
from typing import NamedTuple

import psutil

from ..errors import ProjectError, StoreError
from ..project import Project
from ..record.passes import record_new, tips
from ..record.recording import Options, Recording
from ..registry.show import show
from ..rows.commits import named_experiments
from ..rows.result import Result, read_state
from .dvc_processes import began
from .project_homes import ProjectHome, dvc_files, git_folder, heads, homes, refs
from .rwlock import Stamp, lock_stamp, stamp
from .stage_runs import StageRun
from .store_access import RETRY

_YOUNG = 200_000_000  # ns: a file of that age may be half written
_LISTED = 1.0, 60.0  # s for which the list of projects is good if something has changed, and else
_SHARE = 100  # times as long as making it took, at least
_BUSY = 5.0  # s between two readings of a project in which stages run
_LINES = 4  # on what rows lack, at once


class _Seen(NamedTuple):
    """A project as it was when its results were recorded."""

    files: Mapping[str, Stamp | None]
    """The stamps of its dvc.yaml and dvc.lock files, and of what says git's commit."""
    at: float
    is_whole: bool
    """Whether none of its results was left out, as its stages run."""


class NewResults:
    """Records what is new in a repository's projects, once; `say` gets lines for a user.

    Without `history`, commits that were there before this process began are not read, if they never
    were, nor are projects in which no `dvc` has run since.
    """

    def __init__(
        self,
        root: Path,
        is_running: Callable[[str, Result], bool],
        say: Callable[[str], object],
        *,
        history: bool,
    ) -> None:
        self._root, self._is_running, self._say = root, is_running, say
        self.homes: list[ProjectHome] = []
        self._files: dict[str, list[str]] = {}
        self._seen: dict[str, _Seen] = {}
        self._listed, self._took = -_LISTED[1], 0.0
        self._git = git_folder(f"{root}")
        self._heads: dict[str, list[str]] = {}
        """The files that say which commit each project is at."""
        self._signs: Sequence[Stamp | None] = ()
        self._refs: Mapping[str, Stamp | None] = {}
        self._next_try = 0.0
        self._said: set[str] = set()
        self._old = None if history else tips(root)
        self._since = 0 if history else int(began(psutil.Process()) * 1e9)

    def list(self) -> None:
        """List the projects, and the files that decide their results, if the list is old."""
        now = time.monotonic()
        files = [f"{self._git}/{name}" for name in ("index", "worktrees")]
        files += [head for heads in self._heads.values() for head in heads]
        signs = [*map(stamp, files), *(lock_stamp(home.folder) for home in self.homes)]
        age = _LISTED[signs == self._signs]
        if now - self._listed < max(age, _SHARE * self._took):
            return
        self.homes = [*homes(self._root)]
        self._files = {home.folder: dvc_files(home.folder) for home in self.homes}
        self._heads = {home.folder: heads(home.folder) for home in self.homes}
        self._listed, self._signs = time.monotonic(), signs
        self._took = self._listed - now

    def record(
        self,
        running: Collection[StageRun],
        is_needed: Callable[[], bool],
        *,
        at_once: bool = False,
    ) -> bool:
        """Record what is new, but for what runs or has just ended; raises `ToolError`.

        Return False if a file was too young to be read, or if the worker `is_needed` elsewhere:
        then the rest waits. Projects in which stages run are read seldom, unless somebody needs it
        `at_once`.
        """
        if time.monotonic() < self._next_try:
            return True
        try:
            self.list()
            busy = set() if at_once else {run.home for run in running}
            done = []
            for home in filter(self._is_active, self.homes):
                if is_needed():
                    return False
                done.append(self._record_checkout(home, is_busy=home.folder in busy))
            if not is_needed():
                self._record_commits({run.experiment for run in running} - {""})
                return all(done)
            return False
        except StoreError:
            self._next_try = time.monotonic() + RETRY
            raise

    def _is_active(self, home: ProjectHome) -> bool:
        locks = [lock_stamp(home.folder), *map(stamp, self._files.get(home.folder, ()))]
        return any(each and each.time >= self._since for each in locks)

    def look_again(self, home: str) -> None:
        """Read a project again, as what ran there has ended without its row."""
        self._seen.pop(home, None)

    def _record_checkout(self, home: ProjectHome, *, is_busy: bool) -> bool:
        paths = self._files.get(home.folder, []) + self._heads.get(home.folder, [])
        files = {path: stamp(path) for path in paths}
        if (seen := self._seen.get(home.folder)) and (
            (seen.is_whole and seen.files == files)
            or ((is_busy or not seen.is_whole) and time.monotonic() - seen.at < _BUSY)
        ):
            return True
        if any(each and each.age < _YOUNG for each in files.values()):
            return False
        left_out = list[Result]()

        def is_wanted(result: Result) -> bool:
            if is_running := self._is_running(home.folder, result):
                left_out.append(result)
            return not is_running

        with Project(at=Path(home.folder)) as project:
            recording = Recording(project, self._root, Options())
            try:
                recording.record_state(read_state(project), is_wanted)
            except ProjectError:
                if files != {path: stamp(path) for path in paths}:
                    return False  # it can have been half written
                self._seen[home.folder] = _Seen(files, time.monotonic(), is_whole=True)
                raise
            finally:
                self._take(recording)
        self._seen[home.folder] = _Seen(files, time.monotonic(), is_whole=not left_out)
        return True

    def _record_commits(self, running: Set[str]) -> None:
        """Record the new commits and experiments, and show what new tags register.

        The row of an experiment that is `running` gets its result by itself.
        """
        now = refs(f"{self._git}")
        if now == self._refs:
            return
        try:
            for project in self._distinct():
                self._take(record_new(project, self._root, running, self._old))
                done, notes = show(project, self._root)
                for line in done:
                    self._say(line)
                self._say_once(notes)
        except ProjectError:
            self._refs = now  # until they change
            raise
        is_late = not running.isdisjoint(named_experiments(self._root).values())
        self._refs = {} if is_late else now

    def _distinct(self) -> Iterator[Project]:
        """Yield the projects that count, without their other checkouts."""
        own = filter(self._is_active, reversed(self.homes))
        for home in {home.inner: home for home in own}.values():
            with Project(at=Path(home.folder)) as project:
                yield project

    def _take(self, recording: Recording) -> None:
        """Say which rows were written, and what they lack: of the others that was said before."""
        for store, written in recording.written:
            if written.verb not in ("", "deleted"):
                self._say(f"{written.verb}: {store.row_line(written.name, written.run_id)}")
            else:
                self._said.update(written.notes)
        self._say_once(recording.notes)

    def _say_once(self, lines: Iterable[str]) -> None:
        new = [line for line in lines if line not in self._said]
        self._said.update(new)
        for line in new[:_LINES]:
            self._say(line)
        if len(new) > _LINES:
            self._say(f"{len(new) - _LINES} more such lines; `dvc-mlflow record --all` prints them")
