"""`dvc-mlflow deinit`: undo what `dvc-mlflow init` changed in a project's files."""

import argparse

from ..adoption import edit, ignore_files, nesting_reported
from ..errors import say, warn
from ..prefix import is_prefixed
from ..project import Project
from ..repository import check_git
from ..workspace import write
from .init import LOCK


def run(given: argparse.Namespace) -> int:
    """Edit the files if the user wants it; return 1 if a stage has to be edited by hand."""
    check_git()
    with nesting_reported(), Project() as project:
        stages = project.pipeline().stages.values()
        todo = [stage for stage in stages if is_prefixed(stage.command)]
        edits, refused = edit(project, todo, away=True)
    for name, reason in refused.items():
        warn(f"stage {name} stays as it is: {reason}; remove `dvc-mlflow run` by hand")
    if edits or not refused:
        edits = {**edits, **ignore_files(away=True)}
        if not edits:
            say("nothing to do: no stage has the prefix")
        elif write(edits, yes=given.yes, dry_run=given.dry_run):
            if any(file.suffix == ".lock" for file in edits):
                say(LOCK)
            say(
                "The rows stay, in mlflow.db and mlartifacts/; delete both if you do not need them."
            )
    return bool(refused)
