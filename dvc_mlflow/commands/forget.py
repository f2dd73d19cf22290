"""`dvc-mlflow forget RUN`: delete a row, and the ref that keeps its files in git for it alone."""

import argparse

from .. import trees
from ..errors import say
from ..repository import main_repository
from ..store import Store, read_run
from ..tags import KEPT


def run(given: argparse.Namespace) -> int:
    """Delete the row that the command line names; return the exit status."""
    root = main_repository()
    row = read_run(root, given.run)
    store = Store(root, create=False)
    commits = {value for key, value in row.data.tags.items() if key.startswith(KEPT)}
    with store.lock(), store.errors_reported():
        others = {
            value
            for run in store.runs()
            if run.info.run_id != row.info.run_id
            for key, value in run.data.tags.items()
            if key.startswith(KEPT)
        }
        store.client.delete_run(row.info.run_id)
    gone = [commit for commit in sorted(commits - others) if trees.forget(root, commit)]
    say(f"run {row.info.run_id} is in MLflow's trash")
    for commit in gone:
        say(f"{trees.REFS}/{commit}: deleted; `git gc --prune=now` deletes its files")
    return 0
