"""What DVC runs now, as it says itself: a thread that only looks, and waits for nothing.

An entry in rwlock identifies a stage, and shows its end. That a command runs is shown by a child of
the `dvc` with `DVC_STAGE` in its environment. The variable alone shows nothing: a daemon, or the
`dvc` of another repository, can have inherited it. Nor does an entry alone: anybody can have
committed it.
"""

import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from .. import processes, work_tree
from ..pipeline.run_context import Token, token_of
from .dvc_processes import Command, DvcProcess, is_alive
from .project_homes import ProjectHome
from .rwlock import Held, RWLock, Stamp, holds_lock, last_dvc, lock_stamp, stamp

_LOOK, _REST = 0.1, 0.3  # s between two looks: while something runs, and else
_ACTIVE = 10.0  # s after which a project in which nothing has changed is at rest


@dataclass(eq=False)
class StageRun:
    """One run of a stage."""

    home: str
    """The project that it runs in; a temporary copy's goes soon after its end."""
    main: str
    """The project of which it is a copy, or itself."""
    dvc: psutil.Process
    """The `dvc` that runs it."""
    file: str
    """The absolute path of its dvc.yaml."""
    name: str
    """As in that dvc.yaml."""
    address: str
    """The two as DVC gives them to its commands, relative to where it has been started."""
    mark: str
    """That of its `dvc`, which no other process has."""
    token: Token | None
    """What `dvc-mlflow run` before the `dvc` gives to the runs of scripts."""
    folder: str
    """The folder in which its command began."""
    experiment: str
    """DVC's name of the experiment that it runs for, if any."""
    store: str
    """Where its environment says that MLflow's store is, or ""."""
    began: float
    """In seconds since 1970."""
    held: Held
    before: Stamp | None
    """That of its dvc.lock while the entry in rwlock still stood; None if that was not seen."""
    locked: Stamp | None = None
    """That of rwlock since it began: `dvc` writes it again at the stage's end."""
    commands: set[int] = field(default_factory=set)
    """The process ids of its commands."""
    ended: float = 0.0
    """When the entry was gone, or 0."""
    was_killed: bool = False
    """Whether the process has gone and its entry stayed."""
    has_next: bool = False
    """Whether the same `dvc` has begun another stage."""
    repeated_by: "StageRun | None" = None
    """The next run of the same stage, by whatever `dvc`."""

    @property
    def pid(self) -> int:
        """The id of its `dvc`."""
        return int(self.dvc.pid)

    @property
    def lock(self) -> str:
        """The path of its dvc.lock."""
        return f"{Path(self.file).with_name('dvc.lock')}"

    @property
    def is_dvc_alive(self) -> bool:
        """Whether its `dvc` still runs."""
        return is_alive(self.dvc)

    @property
    def is_dvc_done(self) -> bool:
        """Whether its `dvc` has gone on to another stage, or has ended, or left its project.

        A Python program that has called `Repo.reproduce` lives on. DVC holds the lock of a project
        except while a command runs.
        """
        return self.has_next or not self.is_dvc_alive or not holds_lock(self.home, self.pid)


class _Place:
    """A project, or one of DVC's temporary copies of it, as it was seen last."""

    def __init__(self, home: str, main: str) -> None:
        self.home, self.main = home, main
        self.rwlock = RWLock(home)
        self.dvcs: dict[int, DvcProcess] = {}
        self._signs: tuple[Stamp | None, ...] = ()
        """Of the files that name processes, when these were found."""

    def is_same(self, run: StageRun) -> bool:
        """Whether an entry like that of a run is still the same, as far as rwlock tells.

        By DVC's API, a stage can run again within a moment.
        """
        return self.rwlock.stamp == run.locked or self.rwlock.held.keys() != {run.pid}

    @property
    def is_at_rest(self) -> bool:
        """Whether nothing runs here, and no `dvc` has just begun."""
        return self.is_quiet and not self.dvcs

    @property
    def is_quiet(self) -> bool:
        """Whether nothing has happened here for a while; a program that has run DVC can live on."""
        is_young = any(each.age < _ACTIVE * 1e9 for each in self._signs if each)
        at_work = (p for p in self.dvcs if p in self.rwlock.held or holds_lock(self.home, p))
        return not (is_young or any(at_work))

    def find(self) -> None:
        """Find the processes that have locked the project, and forget those that have ended."""
        signs = self.rwlock.stamp, lock_stamp(self.home)
        if signs == self._signs and self.is_at_rest:
            return
        self._signs, last = signs, last_dvc(self.home)
        for pid in {*self.rwlock.held, *([last] if last else [])} - self.dvcs.keys():
            with suppress(psutil.Error, OverflowError, ValueError):
                self.dvcs[pid] = DvcProcess(pid)
        for pid in [pid for pid, dvc in self.dvcs.items() if not is_alive(dvc.process)]:
            del self.dvcs[pid]


class Looker(threading.Thread):
    """Looks at the projects ten times a second; `runs` are the runs that it has seen."""

    def __init__(self, homes: Sequence[ProjectHome]) -> None:
        super().__init__(daemon=True, name="looker")
        self.homes = homes
        self.runs: tuple[StageRun, ...] = ()
        """Each until it is taken."""
        self.has_new = threading.Event()
        """Set when there is one more."""
        self.error: Exception | None = None
        """What went wrong last."""
        self.count = 0
        """How often it has looked."""
        self._places: dict[str, _Place] = {}
        self._ends = threading.Event()
        self._lock = threading.Lock()

    def run(self) -> None:
        """Look until it is told to stop."""
        pause = _LOOK
        while not self._ends.wait(pause):
            try:
                self.look()
            except Exception as error:  # the next look may find what this one has not
                self.error = error
            self.count += 1
            pause = _REST if self.is_at_rest else _LOOK

    @property
    def is_at_rest(self) -> bool:
        """Whether nothing runs, and no `dvc` has just begun."""
        return not self.runs and all(place.is_at_rest for place in [*self._places.values()])

    @property
    def is_quiet(self) -> bool:
        """Whether nothing runs, and nothing has happened for a while."""
        return not self.runs and all(place.is_quiet for place in [*self._places.values()])

    def stop(self) -> None:
        """Let it end."""
        self._ends.set()

    def take(self, run: StageRun) -> None:
        """Forget a run of which all is known."""
        with self._lock:
            self.runs = tuple(each for each in self.runs if each is not run)

    def look(self) -> None:
        """Look once at all projects and at DVC's temporary copies of them."""
        listed = dict(self._listed())
        for home in self._places.keys() - listed.keys():
            del self._places[home]
        for home, main in listed.items():
            if home not in self._places:
                self._places[home] = _Place(home, main)
            try:
                self._look_at(self._places[home])
            except work_tree.RefusedError as error:  # of one project; the others are looked at
                self.error = error
        for run in self.runs:
            if run.home not in listed:
                run.ended = run.ended or time.time()

    def _listed(self) -> Iterator[tuple[str, str]]:
        """Yield the places to look at, each with the project of which it is a copy."""
        for home in self.homes:
            yield home.folder, home.folder
            for folder in (".dvc/tmp/exps/standalone", ".dvc/tmp/exps"):
                path = f"{home.folder}/{folder}"
                if not work_tree.is_inside(path, home.folder, of_dvc=True):
                    continue  # a link, which a commit can have
                with suppress(OSError), os.scandir(path) as entries:
                    for entry in entries:
                        if entry.name.startswith("tmp") and entry.is_dir(follow_symlinks=False):
                            yield os.path.normpath(f"{entry.path}/{home.inner}"), home.folder

    def _look_at(self, place: _Place) -> None:
        mine = [run for run in self.runs if run.home == place.home and not run.ended]
        before = {run: stamp(run.lock) for run in mine}  # counts if the entry stands afterwards
        is_now = place.rwlock.read()
        place.find()
        held = place.rwlock.held
        for run in mine if is_now else ():
            stands = run.held.is_part_of(held.get(run.pid, Held())) if run.held else None
            if not is_alive(run.dvc):
                run.was_killed = bool(stands)  # a dvc that ends removes its entry
                run.ended = time.time()
            elif stands:
                run.before = before[run] if place.is_same(run) else run.before
            elif (
                stands is False
                or holds_lock(run.home, run.pid)
                # Without an entry; by DVC's API, the lock can be free again.
                or (stands is None and not any(map(psutil.pid_exists, run.commands)))
            ):
                run.ended = time.time()
        for dvc in place.dvcs.values():
            for command in dvc.commands():
                with suppress(psutil.Error, OSError):  # it can have ended by now
                    self._see(place, dvc, command)

    def _see(self, place: _Place, dvc: DvcProcess, command: Command) -> None:
        """Take note of a command of a stage."""
        mine = [run for run in self.runs if run.dvc == dvc.process]
        if any(command.pid in run.commands for run in mine):
            return
        address, _, name = command.env["DVC_STAGE"].rpartition(":")
        file = os.path.normpath(Path(dvc.process.cwd(), address or "dvc.yaml"))
        before = stamp(f"{Path(file).with_name('dvc.lock')}")
        if not psutil.pid_exists(command.pid):
            before = None  # the stage can have ended, and dvc.lock can have its result
        if not place.rwlock.read():
            return  # while the command runs, its entry stands: the next look finds it
        last = mine[-1] if mine else None
        is_next = last and not last.ended and (last.file, last.name) == (file, name)
        if last and is_next and place.is_same(last):
            last.commands.add(command.pid)
            return
        if place.home != project_of(file):
            return  # `--temp` and the queue lock the main project first; and ids are used again
        self._add(
            StageRun(
                home=place.home,
                main=place.main,
                dvc=dvc.process,
                file=file,
                name=name,
                address=command.env["DVC_STAGE"],
                mark=processes.process(dvc.pid),
                token=token_of(command.env),
                folder=command.folder,
                experiment=command.env.get("DVC_EXP_NAME", ""),
                store=command.env.get("MLFLOW_TRACKING_URI", ""),
                began=command.began,
                held=place.rwlock.held.get(dvc.pid, Held()),
                before=before,
                locked=place.rwlock.stamp,
                commands={command.pid},
            )
        )

    def _add(self, run: StageRun) -> None:
        for other in self.runs:
            if other.pid == run.pid and other.home == run.home:
                other.has_next, other.ended = True, other.ended or time.time()
            if (other.file, other.name) == (run.file, run.name):
                other.repeated_by = other.repeated_by or run
        with self._lock:
            self.runs = (*self.runs, run)
        self.has_new.set()


def project_of(file: str) -> str:
    """Return the root of the DVC project around a file, or "" if there is none."""
    return next((f"{each}" for each in Path(file).parents if (each / ".dvc").is_dir()), "")
