"""`dvc-mlflow forget ROW`: delete a row, and the ref that keeps its files in git for it alone."""

import argparse

from ..errors import say
from ..pipeline.tags import KEPT
from ..place import main_repository
from ..record.recording import release
from ..rows.kept_trees import REFS
from ..store.runs import read_run
from ..store.store import Store


def run(arguments: argparse.Namespace) -> int:
    """Delete the row that the command line names; return the exit status."""
    root = main_repository()
    row = read_run(root, arguments.run)
    store = Store.existing(root)
    with store.lock(), store.errors_reported():
        store.client.delete_run(row.info.run_id)
        kept = row.data.tags.get(KEPT, "")
        is_gone = release(store, row.info.run_id, kept)
    say(f"{arguments.run}: is in MLflow's trash")
    if is_gone:
        say(f"{REFS}/{kept}: deleted; `git gc --prune=now` deletes its files")
    return 0
