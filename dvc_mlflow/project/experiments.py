"""DVC's experiments: expand overrides to points, and run one of them."""

import errno
import json
import logging
import posixpath
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from posixpath import normpath
from tempfile import TemporaryDirectory
from typing import Any

from dvc.dependency import ParamsDependency
from dvc.exceptions import CheckoutError, DvcException, FileTransferError
from dvc.lock import LockError
from dvc.utils.cli_parse import to_path_overrides
from dvc.utils.hydra import apply_overrides, get_hydra_sweeps, to_hydra_overrides
from dvc.utils.serialize import modify_yaml
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException

from ..errors import ProjectError
from ..git import git
from .opened import parse
from .running import Project

PARAMS = str(ParamsDependency.DEFAULT_PARAMS_FILE)

# Ended by a signal: Popen reports -number, a shell reports 128 + number.
_SIGNALLED = re.compile(r" exited with (-\d+|129|1[3-8]\d|19[0-2])$")


_MAY_PASS = (FileTransferError, CheckoutError, LockError)  # of DVC's own errors


class FinalError(ProjectError):
    """Another try would fail in the same way: a stage or the repository is to blame."""


class UnfitError(ProjectError):
    """This machine is to blame: its disk is full, or it lacks a package or credentials."""


def grid(overrides: Sequence[str]) -> list[list[str]]:
    """Return the overrides of each point, in the order of `dvc exp run --queue`.

    Raises `ProjectError`.
    """
    with _overrides_reported():
        points = get_hydra_sweeps(to_path_overrides(overrides))
    return [
        [text if file == PARAMS else f"{file}:{text}" for file in point for text in point[file]]
        for point in points
    ]


def parsed(overrides: Sequence[str]) -> list[tuple[str, Override]]:
    """Return overrides as Hydra reads them, each after its params file; raises `ProjectError`."""
    with _overrides_reported():
        found = to_path_overrides(overrides).items()
        return [(normpath(file), o) for file, texts in found for o in to_hydra_overrides(texts)]


def overridden(read: Callable[[str], Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Return the content that these overrides give each params file that they name.

    `read` returns a file's content without them; nothing is written. Raises `ProjectError`.
    """
    found = {}
    with _overrides_reported(), TemporaryDirectory() as folder:
        copy = Path(folder, "params.json")  # read faster than YAML, whatever the file itself is
        for file, texts in to_path_overrides(overrides).items():
            copy.write_text(json.dumps(read(normpath(file)), default=str))
            apply_overrides(copy, texts)
            found[normpath(file)] = json.loads(copy.read_text())
    return found


def content(project: Project, file: str) -> Any:
    """Return what a params file says; raises `ProjectError`."""
    if (text := project.text(file)) is None:
        raise ProjectError(f"{file}: there is no such params file")
    try:
        return parse(text, file) or {}
    except ValueError as error:
        raise ProjectError(f"{file}: {error}") from None


@contextmanager
def _overrides_reported() -> Iterator[None]:
    try:
        yield
    except (DvcException, HydraException, ValueError) as error:
        raise ProjectError(f"{error.__cause__ or error}") from None


def remote(project: Project) -> dict[str, Any]:
    """Return the config that another clone needs for the default remote, if there is one."""
    config = project._repo.config
    if not (name := config["core"].get("remote")):
        return {}
    own = {"core": {"remote": name}, "remote": {name: config["remote"][name]}}
    found: dict[str, Any] = json.loads(json.dumps(own, default=str))  # a path as text
    return found


def take(project: Project, donors: Mapping[str, str]) -> None:
    """Take stages from the commits of other experiments: their entries in dvc.lock, and files.

    If such a stage really is unchanged, DVC then skips it, and pulls the files that git lacks. The
    project must be opened again.
    """
    stages, folder = project.pipeline().stages, project.root
    for stage, source in donors.items():
        directory, name = posixpath.split(stage)
        lock = posixpath.join(directory, "dvc.lock")
        with suppress(ProjectError, KeyError):  # gone by now: the stage runs
            theirs = parse(_committed(project, source, lock).decode(), "dvc.lock")
            with modify_yaml(str(folder / lock)) as ours:
                ours.setdefault("schema", theirs["schema"])
                ours.setdefault("stages", {})[name] = theirs["stages"][name]
            for out in stages[stage].outs:
                if not out.cached:
                    path = f":(top,literal){posixpath.join(project.folder, out.path)}"
                    git("restore", f"--source={source}", "--worktree", "--", path, cwd=folder)


def _committed(project: Project, commit: str, path: str) -> bytes:
    return git(
        "cat-file", "blob", f"{commit}:{posixpath.join(project.folder, path)}", cwd=project.root
    )


def run(project: Project, name: str, overrides: Sequence[str], config: Mapping[str, Any]) -> None:
    """Run an experiment in this clone; `config` is that of the remote that its files come from.

    Earlier experiments are removed. Raises `FinalError`, `UnfitError`, or `ProjectError` if another
    try may succeed.
    """
    repo = project._repo
    logging.getLogger("dvc").setLevel(logging.INFO)  # for the log of the trial
    with classified():
        with repo.config.edit("local") as local:
            local.update(config)
        repo.experiments.remove(all_commits=True)
        repo.experiments.run(params=[*overrides], name=name, pull=True)


def push(project: Project) -> None:
    """Push the files of this clone to its DVC remote; raises what `run` raises."""
    with classified():
        project._repo.push()


@contextmanager
def classified() -> Iterator[None]:
    """Turn what DVC raises into the error that its chain of causes calls for.

    What DVC itself decides is final. What comes from below it, such as a remote's library or the
    operating system, may pass. The message is that of DVC's own command line.
    """
    try:
        yield
    except Exception as error:
        causes: list[BaseException] = [error]
        while cause := causes[-1].__cause__:
            causes.append(cause)
        kind = ProjectError
        if any(map(_is_unfit, causes)):
            kind = UnfitError
        elif all(isinstance(c, DvcException) and not isinstance(c, _MAY_PASS) for c in causes):
            kind = ProjectError if _SIGNALLED.search(f"{causes[-1]}") else FinalError
        said = [" ".join(f"{cause}".split()) or type(cause).__name__ for cause in causes]
        raise kind(": ".join(said)) from None


def _is_unfit(error: BaseException) -> bool:
    """Whether an error says that this machine lacks space, a package or credentials."""
    if isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return True
    is_refused = re.search("Auth|Credentials|PermissionDenied", type(error).__name__)
    return bool(is_refused) or isinstance(error, ImportError | PermissionError)
