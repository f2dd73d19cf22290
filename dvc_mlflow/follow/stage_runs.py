"""What DVC runs now, as it says itself.

An entry in rwlock identifies a stage, and shows its end. That a command runs is shown by a child of
the `dvc` with `DVC_STAGE` in its environment. The variable alone shows nothing: a daemon, or the
`dvc` of another repository, can have inherited it. Nor does an entry alone: DVC makes one for a
stage that has not changed, and anybody can have committed one.
"""

import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from .. import processes, work_tree
from ..place import project_root
from ..project.rwlock import held_by, last_dvc
from .project_homes import ProjectHome, stamp


@dataclass(eq=False)
class StageRun:
    """One run of a stage."""

    home: str
    """The project that it runs in; a temporary copy's goes soon after its end."""
    main: str
    """The project of which that is a copy, or itself."""
    dvc: str
    """The unique name of the `dvc` that runs it."""
    file: str
    """The absolute path of its dvc.yaml."""
    name: str
    """As in that dvc.yaml."""
    env: Mapping[str, str]
    """The environment of its command."""
    folder: str
    """The folder in which its command began."""
    began: float
    """In seconds since 1970."""
    held: frozenset[str]
    """What its entry in rwlock names."""
    written: int
    """When rwlock was written last, in ns; DVC writes it again at the stage's end."""
    commands: set[int] = field(default_factory=set)
    """The process ids of its commands, which can be several, one after the other."""
    ended: float = 0.0
    """When the entry was gone, or 0."""
    was_killed: bool = False
    """Whether its `dvc` has gone, and the entry stayed."""

    @property
    def experiment(self) -> str:
        """DVC's name of the experiment that it runs for, or ""."""
        return self.env.get("DVC_EXP_NAME", "")

    @property
    def lock(self) -> str:
        """The path of its dvc.lock."""
        return f"{Path(self.file).with_name('dvc.lock')}"

    def is_again(self, other: "StageRun") -> bool:
        """Whether it is a later run of the same stage."""
        return (self.file, self.name) == (other.file, other.name) and self.began > other.began

    @property
    def has_written(self) -> bool:
        """Whether DVC has written dvc.lock since it began, as it does at the end, at once."""
        return self.is_older(self.lock)

    def is_older(self, file: str) -> bool:
        """Whether a file is there, and was written since it began."""
        now = stamp(file)
        return now is not None and now.time / 1e9 >= self.began


class Looker:
    """Looks at projects and DVC's temporary copies of them; `runs` are those that it has seen."""

    def __init__(self, homes: Sequence[ProjectHome]) -> None:
        self.homes = homes
        self.runs: list[StageRun] = []
        """Each until somebody removes it."""
        self.holding: set[str] = set()
        """The processes that have an entry in any project."""

    @property
    def is_busy(self) -> bool:
        """Whether stages run, or a `dvc` that has locked a project last has not ended."""
        return bool(self.runs) or any(
            processes.process(pid) for pid in (last_dvc(home.folder) for home in self.homes) if pid
        )

    def look(self) -> None:
        """Look once; raises `work_tree.RefusedError` once all projects were looked at."""
        listed, self.holding, refused = dict(self._listed()), set[str](), None
        for home, main in listed.items():
            try:
                self._look_at(home, main)
            except work_tree.RefusedError as error:
                refused = error
        for run in self.runs:
            if run.home not in listed:
                run.ended = run.ended or time.time()
        if refused:
            raise refused

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

    def _look_at(self, home: str, main: str) -> None:
        held = held_by(home)
        for run in self.runs:
            if run.home == home and not run.ended:
                is_dead = not processes.is_alive(run.dvc)
                stands = held is None or run.held <= held.get(
                    processes.pid_of(run.dvc), frozenset()
                )
                if is_dead or not stands:
                    run.ended, run.was_killed = time.time(), is_dead and stands
        for pid in held or ():
            if dvc := processes.process(pid):
                self.holding.add(dvc)
                with suppress(OSError, ValueError):  # it can have ended
                    for command, env in _commands(pid):
                        self._see(home, main, dvc, command, env)

    def _see(self, home: str, main: str, dvc: str, command: int, env: Mapping[str, str]) -> None:
        """Take note of a command of a stage."""
        mine, pid = [run for run in self.runs if run.dvc == dvc], processes.pid_of(dvc)
        if any(command in run.commands for run in mine):
            return
        began, folder = processes.began(command), Path(f"/proc/{command}/cwd").readlink()
        address, _, name = env["DVC_STAGE"].rpartition(":")
        file = os.path.normpath(Path(f"/proc/{pid}/cwd").readlink() / (address or "dvc.yaml"))
        if home != f"{project_root(Path(file).parent)}":
            return  # `--temp` and the queue lock the main project first; and ids are used again
        written, held = stamp(f"{home}/.dvc/tmp/rwlock"), held_by(home)
        if not (written and held and (paths := held.get(pid))):
            return  # half written: the next look finds it
        for run in mine:
            is_same = (run.file, run.name) == (file, name) and not run.ended
            if is_same and (run.written == written.time or {*held} != {pid}):
                run.commands.add(command)
                return
        for run in mine:  # `dvc` has gone on
            run.ended = run.ended or time.time()
        self.runs.append(
            StageRun(
                home=home,
                main=main,
                dvc=dvc,
                file=file,
                name=name,
                env=env,
                folder=f"{folder}",
                began=began,
                held=paths,
                written=written.time,
                commands={command},
            )
        )


def _commands(dvc: int) -> Iterator[tuple[int, Mapping[str, str]]]:
    """Yield the commands of stages that a `dvc` runs, with their environments."""
    inherited = processes.environ(dvc).get("DVC_STAGE")
    for task in Path(f"/proc/{dvc}/task").glob("*"):
        for pid in (task / "children").read_text().split():
            env = processes.environ(int(pid))
            words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            # A stage can run another `dvc`, whose children all have the variable.
            if (stage := env.get("DVC_STAGE")) and (stage != inherited or b"-c" in words):
                yield int(pid), env
