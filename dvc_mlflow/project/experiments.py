"""DVC's experiments: the points of overrides, a run of one of them, and whom an error blames."""

import errno
import json
import logging
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from posixpath import normpath
from tempfile import TemporaryDirectory
from typing import Any

from dvc.dependency import ParamsDependency
from dvc.exceptions import CheckoutError, DvcException, FileTransferError
from dvc.lock import LockError
from dvc.utils.cli_parse import to_path_overrides
from dvc.utils.hydra import apply_overrides, get_hydra_sweeps, to_hydra_overrides
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException

from ..errors import ProjectError, masked
from .dvc_errors import parse
from .project import Project

PARAMS = str(ParamsDependency.DEFAULT_PARAMS_FILE)

FAILED, UNFIT, FULL, AGAIN, UNPUSHED = "failed", "unfit", "full", "again", "unpushed"
"""What an error says of a trial: it would fail again, its node cannot run trials, the DVC remote is
full, or another try may succeed, for which the node has its results if they are only unpushed."""

# Ended by a signal: Popen reports -number, a shell reports 128 + number.
_SIGNALLED = re.compile(r" exited with (-\d+|129|1[3-8]\d|19[0-2])$")
_MAY_PASS = (FileTransferError, CheckoutError, LockError)  # of DVC's own errors


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


def run_experiment(project: Project, name: str, overrides: Sequence[str]) -> None:
    """Run an experiment in this clone, with stages from the run cache of its default remote.

    Earlier experiments are removed. Raises what DVC raises.
    """
    logging.getLogger("dvc").setLevel(logging.INFO)  # for the log of the trial
    project.repo.experiments.remove(all_commits=True)
    project.repo.experiments.run(params=[*overrides], name=name, pull=True)


def blame(error: BaseException, *, at_remote: str = "") -> tuple[str, str]:
    """Return what an error says of a trial, and the messages of its causes as one line.

    What DVC itself decides is final. What comes from below it, such as a remote's library or the
    operating system, may pass. `at_remote` names the DVC remote if the error is one of its.
    """
    causes = [error]
    while cause := causes[-1].__cause__:
        causes.append(cause)
    texts = [getattr(c, "strerror", "") if at_remote else "" for c in causes]  # without its files
    said = [
        " ".join(f"{text or cause}".split()) or type(cause).__name__
        for text, cause in zip(texts, causes, strict=True)
    ]
    line = masked(": ".join(filter(None, [at_remote, *said])))
    refused = any(re.search("Auth|Credentials|PermissionDenied", type(c).__name__) for c in causes)
    if any(isinstance(c, OSError) and c.errno in {errno.ENOSPC, errno.EDQUOT} for c in causes):
        return (FULL if at_remote else UNFIT), line
    if refused or any(isinstance(cause, ImportError | PermissionError) for cause in causes):
        return UNFIT, line
    is_own = all(isinstance(c, DvcException) and not isinstance(c, _MAY_PASS) for c in causes)
    return (FAILED if is_own and not _SIGNALLED.search(said[-1]) else AGAIN), line
