"""What is new in a repository: a dvc.lock that has changed, an experiment, a commit, a tag."""

import os
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence, Set
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from ..errors import ProjectError, StoreError
from ..git import ask, checkout, glob, names
from ..place import folder_of
from ..project import Project
from ..registry.show import show
from ..rows.commits import named_experiments
from ..rows.result import Result, read
from .history import record_history
from .known import RETRY
from .recording import Options, Recording
from .running import Home, StageRun
from .rwlock import Stamp, lock_stamp, stamp

_YOUNG = 200_000_000  # ns: a file of that age may be half written
_LISTED = 1.0, 60.0  # s for which the list of projects is good if something has changed, and else
_SHARE = 100  # times as long as making it took, at least
_BUSY = 5.0  # s between two readings of a project in which stages run


class _Seen(NamedTuple):
    """A project as it was when its results were recorded."""

    files: Mapping[str, Stamp | None]
    """The stamps of its dvc.yaml and dvc.lock files, and of what says git's commit."""
    at: float
    is_whole: bool
    """Whether none of its results was left out, as its stages run."""


class NewResults:
    """Records what is new in a repository's projects, once; `say` gets lines for a user."""

    def __init__(
        self,
        root: Path,
        is_running: Callable[[str, Result], bool],
        say: Callable[[str], object],
    ) -> None:
        self._root, self._is_running, self._say = root, is_running, say
        self.homes: list[Home] = []
        self._files: dict[str, list[str]] = {}
        self._seen: dict[str, _Seen] = {}
        self._listed, self._took = -_LISTED[1], 0.0
        self._git = _git_folder(f"{root}")
        self._heads: dict[str, list[str]] = {}
        """The files that say which commit each project is at."""
        self._signs: Sequence[Stamp | None] = ()
        self._refs: Mapping[str, Stamp | None] = {}
        self._next_try = 0.0

    def list(self) -> None:
        """List the projects, and the files that decide their results, if the list is old."""
        began = time.monotonic()
        files = [f"{self._git}/{name}" for name in ("index", "worktrees")]
        files += [head for heads in self._heads.values() for head in heads]
        signs = [*map(stamp, files), *(lock_stamp(home.folder) for home in self.homes)]
        age = _LISTED[signs == self._signs]
        if began - self._listed < max(age, _SHARE * self._took):
            return
        self.homes = [*homes(self._root)]
        self._files = {home.folder: dvc_files(home.folder) for home in self.homes}
        self._heads = {home.folder: _heads(home.folder) for home in self.homes}
        self._listed, self._signs = time.monotonic(), signs
        self._took = self._listed - began

    def record(self, running: Collection[StageRun]) -> None:
        """Record what is new, but for what runs or has just ended; raises `ToolError`."""
        if time.monotonic() < self._next_try:
            return
        try:
            self.list()
            busy = {run.home for run in running}
            for home in self.homes:
                self._record_checkout(home, is_busy=home.folder in busy)
            self._record_commits({run.experiment for run in running} - {""})
        except StoreError:
            self._next_try = time.monotonic() + RETRY
            raise

    def look_again(self, home: str) -> None:
        """Read a project again, as what ran there has ended without its row."""
        self._seen.pop(home, None)

    def _record_checkout(self, home: Home, *, is_busy: bool) -> None:
        paths = self._files.get(home.folder, []) + self._heads.get(home.folder, [])
        files = {path: stamp(path) for path in paths}
        if (seen := self._seen.get(home.folder)) and (
            (seen.is_whole and seen.files == files)
            or ((is_busy or not seen.is_whole) and time.monotonic() - seen.at < _BUSY)
        ):
            return
        if any(each and time.time_ns() - each.time < _YOUNG for each in files.values()):
            return
        left_out = list[Result]()

        def is_wanted(result: Result) -> bool:
            if is_running := self._is_running(home.folder, result):
                left_out.append(result)
            return not is_running

        with Project(at=Path(home.folder)) as project:
            recording = Recording(project, self._root, Options())
            try:
                recording.record_state(read(project), is_wanted=is_wanted)
            except ProjectError:
                if files != {path: stamp(path) for path in paths}:
                    return  # it can have been half written
                self._seen[home.folder] = _Seen(files, time.monotonic(), is_whole=True)
                raise
            finally:
                self._take(recording)
        self._seen[home.folder] = _Seen(files, time.monotonic(), is_whole=not left_out)

    def _record_commits(self, running: Set[str]) -> None:
        """Record the new commits and experiments, and show what new tags register.

        The row of an experiment that is `running` gets its result by itself.
        """
        refs = _refs(f"{self._git}")
        if refs == self._refs:
            return
        try:
            for project in self._distinct():
                self._take(record_history(project, self._root, running))
                done, notes = show(project, self._root)
                for line in (*done, *notes):
                    self._say(line)
        except ProjectError:
            self._refs = refs  # until they change
            raise
        is_late = not running.isdisjoint(named_experiments(self._root).values())
        self._refs = {} if is_late else refs

    def _distinct(self) -> Iterator[Project]:
        """Yield the project and those nested in it, without their other checkouts."""
        for home in {home.inner: home for home in reversed(self.homes)}.values():
            with Project(at=Path(home.folder)) as project:
                yield project

    def _take(self, recording: Recording) -> None:
        """Say which rows were written."""
        for store, written in recording.written:
            if written.verb:
                self._say(f"{written.verb}: {store.row_line(written.name, written.run_id)}")
        for note in recording.notes:
            self._say(note)


def homes(root: Path) -> Iterator[Home]:
    """Yield the project at `root` in each git worktree, and those nested in it."""
    top = checkout(root)
    inner = [os.path.relpath(root, top)]
    listed = ask("worktree", "list", "--porcelain", "-z", cwd=root).split("\0")
    trees = [each.removeprefix("worktree ") for each in listed if each.startswith("worktree ")]
    with suppress(OSError, ProjectError):
        found = names("ls-files", "-co", "--exclude-standard", "-z", "--", "*.dvc/config", cwd=root)
        inner += [f"{path}/../.." for path in found]
    own = (os.path.realpath(f"{tree}/{each}") for tree in (top, *trees) for each in inner)
    for folder in dict.fromkeys(own):
        if Path(folder, ".dvc").is_dir():
            yield Home(folder, os.path.relpath(folder, checkout(Path(folder))))


def dvc_files(home: str) -> list[str]:
    """Return the paths of a project's dvc.yaml and dvc.lock files, wherever they are in it."""
    top = checkout(Path(home))
    folder = folder_of(Path(home), top)
    patterns = [glob(folder, f"**/{name}") for name in ("dvc.lock", "dvc.yaml")]
    try:
        return [f"{top}/{n}" for n in names("ls-files", "-co", "-z", "--", *patterns, cwd=top)]
    except (OSError, ProjectError):  # no git
        return [f"{path}" for name in ("dvc.lock", "dvc.yaml") for path in Path(home).rglob(name)]


def _heads(home: str) -> list[str]:
    """Return the files that say which commit a checkout is at."""
    git = _git_folder(home)
    return [f"{git}/HEAD", f"{git}/logs/HEAD"]


def _git_folder(home: str) -> Path:
    """Return git's folder of a checkout: that of a worktree or a submodule is elsewhere."""
    git = Path(checkout(Path(home)), ".git")
    with suppress(OSError):
        if git.is_file():
            return git.parent / git.read_text().removeprefix("gitdir: ").strip()
    return git


def _refs(git: str) -> dict[str, Stamp | None]:
    """Return the stamps of what changes with a commit, an experiment or a tag."""
    paths = [
        f"{git}/{name}" for name in ("HEAD", "logs/HEAD", "packed-refs", "reftable/tables.list")
    ]
    for kind in ("heads", "remotes", "tags", "exps"):
        paths += [folder for folder, *_ in os.walk(f"{git}/refs/{kind}")]
    return {path: stamp(path) for path in paths}
