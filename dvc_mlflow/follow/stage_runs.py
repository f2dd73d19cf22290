"""What DVC runs now, as it says itself: a thread that only looks, and waits for nothing.

An entry in rwlock identifies a stage, and shows its end. That a command runs is shown by a child of
the `dvc` with `DVC_STAGE` in its environment. The variable alone shows nothing: a daemon, or the
`dvc` of another repository, can have inherited it. Where a process cannot be looked into (another
user's, a container's), an entry that stays shows a run.
"""

import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from .. import processes
from ..pipeline.run_context import Token, token_of
from .dvc_processes import Command, DvcProcess, is_alive
from .project_homes import ProjectHome
from .rwlock import Held, RWLock, Stamp, holds_lock, last_dvc, lock_stamp, stamp

_LOOK, _REST = 0.1, 0.3  # s between two looks: while something runs, and else
_LONG_AGO = 0.0  # since when an entry stands that was there at the first look
_ACTIVE = 10.0  # s after which a project in which nothing has changed is at rest
_STAYS = 1.0  # s that an entry of a process that cannot be looked into stands for, if it is a run


@dataclass(eq=False)
class StageRun:
    """One run of a stage."""

    home: str
    """The project that it runs in; a temporary copy's goes soon after its end."""
    main: str
    """The project of which it is a copy, or itself."""
    pid: int
    """That of its `dvc`."""
    dvc: psutil.Process | None
    """The same; None if no such process is to be seen."""
    is_seen: bool
    """Whether its processes can be looked into."""
    file: str
    """The absolute path of its dvc.yaml; "" while that is not known."""
    name: str
    """As in that dvc.yaml; "" while that is not known."""
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
    def lock(self) -> str:
        """The path of its dvc.lock, or "" while that is not known."""
        return f"{Path(self.file).with_name('dvc.lock')}" if self.file else ""

    @property
    def is_dvc_alive(self) -> bool:
        """Whether its `dvc` still runs, as far as can be seen."""
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
        self._seen: set[int] = set()
        """The ids of processes that could be looked into."""
        self._stands: dict[tuple[int, Held], float] = {}
        """Since when entries of other processes stand."""
        self._is_new = True
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
        is_held = any(since != _LONG_AGO for since in self._stands.values())
        at_work = (p for p in self.dvcs if p in self.rwlock.held or holds_lock(self.home, p))
        return not (is_young or is_held or any(at_work))

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
        self._seen |= {pid for pid in self.dvcs.keys() - self._seen if self.dvcs[pid].is_visible()}

    def unseen(self) -> Iterator[tuple[int, Held, float]]:
        """Yield what processes that cannot be looked into hold for so long that they run a stage.

        What was there at the first look is of a process that has been killed, if none has its id.
        """
        now = time.time()
        held = self.rwlock.held.items()
        entries = [(pid, own) for pid, own in held if own.writes and pid not in self._seen]
        self._stands = {each: self._stands.get(each, now) for each in entries}
        if self._is_new:
            gone = (each for each in entries if each[0] not in self.dvcs)
            self._stands |= dict.fromkeys(gone, _LONG_AGO)
            self._is_new = False
        for (pid, own), since in self._stands.items():
            if since != _LONG_AGO and now - since > _STAYS:
                yield pid, own, since


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
            self._look_at(self._places[home])
        for run in self.runs:
            if run.home not in listed:
                run.ended = run.ended or time.time()

    def _listed(self) -> Iterator[tuple[str, str]]:
        """Yield the places to look at, each with the project of which it is a copy."""
        for home in self.homes:
            yield home.folder, home.folder
            for folder in (".dvc/tmp/exps/standalone", ".dvc/tmp/exps"):
                with suppress(FileNotFoundError):
                    for name in os.listdir(f"{home.folder}/{folder}"):  # noqa: PTH208  (for speed)
                        if name.startswith("tmp"):
                            copy = f"{home.folder}/{folder}/{name}/{home.inner}"
                            yield os.path.normpath(copy), home.folder

    def _look_at(self, place: _Place) -> None:
        mine = [run for run in self.runs if run.home == place.home and not run.ended]
        before = {run: stamp(run.lock) for run in mine}  # counts if the entry stands afterwards
        is_now = place.rwlock.read()
        place.find()
        held = place.rwlock.held
        for run in mine if is_now else ():
            stands = run.held.is_part_of(held.get(run.pid, Held())) if run.held else None
            if run.dvc is not None and not is_alive(run.dvc):
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
        for pid, own, since in place.unseen() if is_now else ():
            if not any((run.pid, run.held) == (pid, own) for run in self.runs):
                self._see_entry(place, pid, own, since)

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
                pid=dvc.pid,
                dvc=dvc.process,
                is_seen=True,
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

    def _see_entry(self, place: _Place, pid: int, held: Held, since: float) -> None:
        """Take note of an entry of a process that cannot be looked into."""
        known = place.dvcs.get(pid)
        self._add(
            StageRun(
                home=place.home,
                main=place.main,
                pid=pid,
                dvc=known.process if known else None,
                is_seen=False,
                file="",
                name="",
                address="",
                mark="",
                token=None,
                folder="",
                experiment="",
                store="",
                began=since,
                held=held,
                before=None,
            )
        )

    def _add(self, run: StageRun) -> None:
        for other in self.runs:
            if other.pid == run.pid and other.home == run.home:
                other.has_next, other.ended = True, other.ended or time.time()
            if run.file and (other.file, other.name) == (run.file, run.name):
                other.repeated_by = other.repeated_by or run
        with self._lock:
            self.runs = (*self.runs, run)
        self.has_new.set()


def project_of(file: str) -> str:
    """Return the root of the DVC project around a file, or "" if there is none."""
    return next((f"{each}" for each in Path(file).parents if (each / ".dvc").is_dir()), "")
