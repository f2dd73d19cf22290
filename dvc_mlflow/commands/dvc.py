"""`dvc-mlflow dvc ARGUMENTS…`: run `dvc` as it is, and record the stages that it runs.

DVC runs each command of a stage as `$SHELL -c COMMAND`, so SHELL names a program of the tool's in
its environment. When `dvc` has ended, what ran nowhere is recorded: results from its run cache.
"""

import os
import shutil
import signal
from collections.abc import Mapping, Sequence
from contextlib import chdir
from pathlib import Path

from .. import own_files
from ..errors import ToolError, warn
from ..live import afterwards, notes, spawn, user_shell
from ..live.plain_text import plans
from ..live.program import install
from ..live.protocol import start_early
from ..live.queue_workers import of_plain_dvc
from ..live.stage_command import is_possible
from ..place import main_repository, project_root
from ..store.exclude import hide_store

_STOPPING = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
_FORWARDED = {*_STOPPING, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2}
_INTERRUPTED = 252  # the exit status of `dvc` after Ctrl-C
_WITH_VALUE = ("--cd", "--cprofile-dump", "--viztracer-depth")
_RUN_STAGES = ("repro", "exp run", "experiments run", "queue start", "stage add --run")
"""The commands of `dvc` that run stages."""


def run(words: Sequence[str]) -> int:
    """Run `dvc` with these arguments; return its exit status."""
    program = shutil.which("dvc")
    if program is None:
        warn("dvc is not on PATH: install it, or add its folder to PATH")
        return 127
    command = [program, *words]
    folder, names = _parse(words)
    root = project_root(folder) if folder.is_dir() else None  # else dvc says what is wrong
    if names not in _RUN_STAGES or root is None or not _can_have_store(folder):
        return spawn.become(command, os.environ)
    if names == "queue start" and of_plain_dvc(root):
        warn("a queue worker of plain dvc runs; `dvc-mlflow record --experiments` adds its rows")
    before, noted = afterwards.look(root), f"{root / own_files.FOLDER / f'{os.getpid()}'}"
    with chdir(folder):
        known = plans(root, afterwards.files(root, "dvc.yaml"))
    notes.write(noted, known)
    env = _environment(root, noted)
    is_early = notes.VARIABLE in env and _starts(names, known)
    code, was_stopped = _run(command, env, folder, noted if is_early else "")
    ran = notes.read(noted)
    if not (was_stopped or code < 0 or code == _INTERRUPTED):
        with chdir(folder):
            afterwards.record(root, before, ran)
    if code < 0:  # end as dvc did
        if -code != signal.SIGKILL:
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    return code


def _parse(words: Sequence[str]) -> tuple[Path, str]:
    """Return the folder that `dvc` will work in, and its command, such as `exp run`."""
    folder, names, given = "", [], iter(words)
    for word in given:
        option, _, value = word.partition("=")
        if option in _WITH_VALUE and "=" not in word:
            value = next(given, "")
        if option == "--cd":
            folder = value
        elif not word.startswith("-"):
            names.append(word)
            if names[0] not in ("exp", "experiments", "queue", "stage") or len(names) == 2:
                break
    if names == ["stage", "add"] and "--run" in words:
        names.append("--run")
    return Path(folder), " ".join(names)


def _can_have_store(folder: Path) -> bool:
    """Hide the store around a folder from git; return False, and say why, if there can be none."""
    try:
        with chdir(folder):
            hide_store(main_repository())
    except ToolError as error:
        warn(f"{error}")
        return False
    return True


def _environment(root: Path, noted: str) -> dict[str, str]:
    """Return the environment of `dvc`, in which SHELL is the tool's if that can work here."""
    env = dict(os.environ)
    if is_possible() and (shell := install(root / own_files.FOLDER)):
        user_shell.replace(env, shell)
        env[notes.VARIABLE] = noted
        env.pop("DVC_STAGE", None)  # of a stage that runs this: dvc sets its own
    return env


def _starts(names: str, known: notes.Entries) -> bool:
    """Whether the recorder starts with `dvc`: it then has the environment that its stages have."""
    entries = (entry for stages in known.values() for entry in stages.values())
    return names == "repro" and any(is_recorded for _, is_recorded, *_ in entries)


def _run(
    command: Sequence[str], env: Mapping[str, str], folder: Path, noted: str
) -> tuple[int, bool]:
    """Run `dvc`; return its exit code, or minus its signal, and whether somebody has stopped it.

    If there are notes, its recorder is started with it.
    """
    if not hasattr(signal, "sigtimedwait"):
        return _run_elsewhere(command, env)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {*_FORWARDED, signal.SIGCHLD})
    started, was_stopped = spawn.start(command, env, mask, None), False
    if noted:
        with chdir(folder):
            start_early(noted, started)
    while not (ended := os.waitpid(started, os.WNOHANG))[0]:
        got = signal.sigwaitinfo({*_FORWARDED, signal.SIGCHLD})
        if got.si_signo in _FORWARDED:
            was_stopped |= got.si_signo in _STOPPING
            if got.si_code <= 0:  # a terminal signals the whole group, a process only us
                os.kill(started, got.si_signo)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    return os.waitstatus_to_exitcode(ended[1]), was_stopped


def _run_elsewhere(command: Sequence[str], env: Mapping[str, str]) -> tuple[int, bool]:
    """Do the same where it is unknown who sends a signal: Ctrl-C reaches `dvc` by the terminal."""
    number_of_stops = 0

    def stop(number: int, _: object) -> None:
        nonlocal number_of_stops
        number_of_stops += 1
        if number != signal.SIGINT:
            os.kill(started, number)

    started = os.posix_spawn(
        command[0], [*command], env, setsigdef=[signal.SIGPIPE, signal.SIGXFSZ]
    )
    for number in _STOPPING:
        signal.signal(number, stop)
    status = os.waitpid(started, 0)[1]
    for number in _STOPPING:
        signal.signal(
            number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
        )
    return os.waitstatus_to_exitcode(status), number_of_stops > 0
