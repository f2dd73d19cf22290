"""DVC's experiments: the points of overrides, a run of one of them, and what an error says."""

import logging
import re
from collections.abc import Sequence
from posixpath import normpath
from typing import Any

from dvc.dependency import ParamsDependency
from dvc.exceptions import DvcException, FileTransferError
from dvc.lock import LockError
from dvc.utils.cli_parse import to_path_overrides
from dvc.utils.hydra import get_hydra_sweeps, to_hydra_overrides
from hydra.core.override_parser.types import Override

from ..errors import masked, one_line
from ..pipeline.numbers import flatten
from .dvc_errors import parse
from .project import Project

PARAMS = str(ParamsDependency.DEFAULT_PARAMS_FILE)

# Ended by a signal: Popen reports -number, a shell reports 128 + number.
_SIGNALLED = re.compile(r" exited with (-\d+|129|1[3-8]\d|19[0-2])$")
# What the run cache leaves out of its key, at any depth of a param (treeverse/dvc#10296).
_NOT_IN_KEY = re.compile(r"\b(size|nfiles)\b")


def grid(overrides: Sequence[str]) -> list[list[str]]:
    """Return the overrides of each point, in the order of `dvc exp run --queue`."""
    points = get_hydra_sweeps(to_path_overrides(overrides))
    return [
        [text if file == PARAMS else f"{file}:{text}" for file in point for text in point[file]]
        for point in points
    ]


def parsed(override: str) -> tuple[str, Override]:
    """Return the params file of an override, and how Hydra reads it."""
    ((file, texts),) = to_path_overrides([override]).items()
    return normpath(file), to_hydra_overrides(texts)[0]


def value(project: Project, file: str, key: str) -> Any:
    """Return a param's value in a params file, or None if it has none; raises `ProjectError`."""
    with one_line(file):
        return flatten(parse(project.content(file).decode(), file)).get(key)


def uses_run_cache(overrides: Sequence[str]) -> bool:
    """Whether DVC's run cache can be used: it would take trials that differ in some params for one.

    These are the params called `size` or `nfiles`, or below such a name.
    """
    return not any(map(_NOT_IN_KEY.search, overrides))


def run_one(project: Project, name: str, overrides: Sequence[str], *, run_cache: bool) -> None:
    """Run an experiment in this clone, with stages from the run cache of its default remote or not.

    Earlier experiments are removed. Raises what DVC raises.
    """
    for logger in ("dvc", "dvc_data"):  # for the log of the trial
        logging.getLogger(logger).setLevel(logging.INFO)
    experiments = project.repo.experiments
    experiments.remove(all_commits=True)
    experiments.run(params=[*overrides], name=name, pull=True, run_cache=run_cache)


def blame(error: BaseException) -> tuple[bool, str]:
    """Return whether an error is the trial's own, and the messages of its causes as one line.

    What DVC itself decides would happen anywhere. What comes from below it, such as a remote's
    library, the operating system or a signal, is the node's, or may pass.
    """
    causes = [error]
    while cause := causes[-1].__cause__:
        causes.append(cause)
    said = [" ".join(f"{cause}".split()) or type(cause).__name__ for cause in causes]
    below = (FileTransferError, LockError)  # of DVC's own errors
    is_own = all(isinstance(c, DvcException) and not isinstance(c, below) for c in causes)
    # Of an override, whose cause is Hydra's: no other error of DVC's is one of a value.
    is_own |= isinstance(error, DvcException) and isinstance(error, ValueError)
    return is_own and not _SIGNALLED.search(said[-1]), masked(": ".join(said))
