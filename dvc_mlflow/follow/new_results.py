"""What is new in a repository: a dvc.lock that has changed, an experiment, a commit, a tag."""

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from .. import processes
from ..errors import ProjectError
from ..git import checkout, common_folder
from ..project.project import Project
from ..record.recording import Recording
from ..registry.show import show
from ..rows.commits import since
from ..rows.result import Result, read_state
from ..store.store import ExperimentStores
from .project_homes import ProjectHome, Stamp, files_watched, homes, refs_watched, rested, stamp

_LISTED = 1.0, 60.0  # s for which the list of projects is good if something has changed, and else
_LINES = 4  # on what rows lack, at once

_Stamps = Mapping[str, Stamp | None]
_Ended = Mapping[str, Sequence[str]]


class NewResults:
    """Records what is new in a repository's projects, once; `say` gets lines for a user.

    Commits that can be reached from `old` ones are not new. Without `history`, nor are results of
    projects in which nothing was written since this process began. `live_runs` are those of open
    rows, of which other lines say that they have a result.
    """

    def __init__(
        self, root: Path, old: Sequence[str], say: Callable[[str], object], *, history: bool
    ) -> None:
        self._root, self._say, self._git = root, say, common_folder(root)
        self.homes: list[ProjectHome] = []
        self.live_runs: Set[str] = set()
        self._files: dict[str, list[str]] = {}
        """Those that decide a project's results."""
        self._seen: dict[str, _Stamps] = {}
        self._listed, self._signs, self._refs = 0.0, list[Stamp | None](), dict[str, Stamp | None]()
        self._stores: dict[str, ExperimentStores] = {}
        self._said: set[str] = set()
        self._began = 0.0 if history else processes.began(os.getpid())
        self._old = old
        self._list()

    def record(self, is_new: Callable[[str, Result], bool], running: Set[str]) -> None:
        """Record what is new in projects and commits; raises `ToolError`.

        What `is_new` denies of a project's results, and what is of `running` experiments, goes to
        live rows.
        """
        self._list()
        for folder in [home.folder for home in self.homes if self._is_used(home)]:
            now = {path: stamp(path) for path in self._files[folder]}
            is_whole = all(each.is_whole for each in now.values() if each)
            if is_whole and now != self._seen.get(folder):
                self._seen[folder] = now  # an error is said once
                try:
                    self.record_checkout(folder, partial(is_new, folder))
                except ProjectError:
                    if now == {path: stamp(path) for path in now} and rested(now.values()):
                        raise
                    del self._seen[folder]  # DVC is writing, and the next look reads it again
        self._record_commits(running)

    def look_again(self, home: str = "") -> None:
        """Read a project again, as a row has ended; or all, as the store was away."""
        self._seen = {path: each for path, each in self._seen.items() if home not in ("", path)}
        if not home:
            self._refs, self._stores = {}, {}

    def stores_of(self, folder: str) -> ExperimentStores:
        """Return the stores of the project in a folder, each opened once."""
        return self._stores.setdefault(folder, ExperimentStores(self._root, folder))

    def record_checkout(
        self, home: str, is_wanted: Callable[[Result], bool], ended: _Ended | None = None
    ) -> Recording:
        """Record a project's wanted results, given begun runs whose stages have `ended`."""
        with self.recording(home, ended) as recording:
            recording.record_state(read_state(recording.project), is_wanted)
        return recording

    def _record_commits(self, running: Set[str]) -> None:
        """Record the new commits and experiments, and show what new tags register."""
        now = refs_watched(self._git)
        if now == self._refs:
            return
        self._refs = now  # an error is said once
        commits = since(checkout(self._root), self._old, running)
        # The queue and `--temp` lock the main project, and write nothing else in it.
        used = [home for home in self.homes if self._is_used(home, ".dvc/tmp/lock")]
        for folder in {home.inner: home.folder for home in reversed(used)}.values():
            with self.recording(folder) as recording:
                if commits.only:
                    recording.record_commits(commits)
                done, notes = show(recording.project, self._root)
            for line in done:
                self._say(line)
            self.say_once(notes)
        self._old = commits.starts
        if commits.having(running):
            self._refs = {}

    def _list(self) -> None:
        """List the projects, and the files that decide their results, if the list is old."""
        files = [f"{self._git}/{name}" for name in ("index", "worktrees")]
        files += [f"{home.folder}/.dvc/tmp/lock" for home in self.homes]
        signs, age = [*map(stamp, files)], time.monotonic() - self._listed
        if age > _LISTED[signs == self._signs]:
            self.homes = [*homes(self._root)]
            self._files = {home.folder: files_watched(home.folder) for home in self.homes}
            self._listed, self._signs = time.monotonic(), signs

    def _is_used(self, home: ProjectHome, *more: str) -> bool:
        """Whether one of a project's files was written since this process began."""
        since, files = self._began * 1e9, [f"{home.folder}/{name}" for name in more]
        found = map(stamp, (*files, *self._files[home.folder]))
        return not since or any(each.time >= since for each in found if each)

    @contextmanager
    def recording(self, home: str, ended: _Ended | None = None) -> Iterator[Recording]:
        """Record in the block, given begun runs whose stages have `ended`.

        Say then which rows were written, and what rows lack, once.
        """
        with Project(at=Path(home)) as project:
            recording = Recording(project, self._root, self.stores_of(project.folder), ended)
            yield recording
        for store, written in recording.written:
            if written.verb in ("", "deleted"):
                self._said.update(written.notes)
            elif ended is None and written.run_id not in self.live_runs:
                self._say(f"{written.verb}: {store.row_line(written.name, written.run_id)}")
        self.say_once(recording.notes)

    def say_once(self, lines: Iterable[str]) -> None:
        """Say lines that were not said before, of very many the first."""
        new = [line for line in lines if line not in self._said]
        self._said.update(new)
        for line in new[:_LINES]:
            self._say(line)
        if len(new) > _LINES:
            self._say(f"{len(new) - _LINES} more such lines; `dvc-mlflow record --all` prints them")
