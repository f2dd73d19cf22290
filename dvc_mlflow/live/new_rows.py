"""Record some results of the workspace and some experiments, with one line for each new row."""

from collections.abc import Mapping, Set
from itertools import chain

from ..errors import warn
from ..follow.recording import Options, Recording
from ..place import main_repository
from ..project import Project
from ..registry.show import show
from ..rows.commits import Commits
from ..rows.result import read


def record(stages: Set[str], experiments: Mapping[str, Set[str]]) -> None:
    """Record the rows of the workspace, and of experiments by commit, that depend on these stages.

    Raises `ToolError`.
    """
    with Project() as project:
        recording = Recording(project, main_repository(), Options())
        if experiments:
            commits = Commits([*experiments], frozenset(experiments))
            names = {*chain(*experiments.values())}
            recording.record(commits, is_wanted=lambda result: result.depends(names))
        if stages:
            here = read(project)
            recording.record(here=here, is_wanted=lambda result: result.depends(stages))
    for store, written in recording.written:
        if written.verb in ("added", "completed"):
            warn(store.row_line(written.name, written.run_id))
    for note in recording.notes:
        warn(note)


def show_registry() -> None:
    """Let MLflow show what git's tags register; raises `ToolError`."""
    with Project() as project:
        done, notes = show(project, main_repository())
    for line in (*done, *notes):
        warn(line)
