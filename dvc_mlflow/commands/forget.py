"""`dvc-mlflow forget RUN`: delete a row, and the ref that keeps its files in git for it alone."""

import argparse

from mlflow.entities import Run

from ..errors import say
from ..pipeline.tags import KEPT, known_keys, tagged
from ..place import main_repository
from ..rows import trees
from ..store.lookup import read_run
from ..store.store import Store


def run(given: argparse.Namespace) -> int:
    """Delete the row that the command line names; return the exit status."""
    root = main_repository()
    row = read_run(root, given.run)
    store = Store(root, create=False)
    commits = _kept(row)
    with store.lock(), store.errors_reported():
        every = store.all_experiments()  # dvc.yaml's rows can be in several
        others = {
            commit
            for name, commit in tagged(row.data.tags, KEPT).items()
            if trees.is_hash(commit)
            and any(
                run.info.run_id != row.info.run_id
                for key in known_keys(f"{KEPT}{name}")
                for run in store.runs(f"tags.`{key}` = '{commit}'", experiments=every)
            )
        }
        store.client.delete_run(row.info.run_id)
    gone = [commit for commit in sorted(commits - others) if trees.forget(root, commit)]
    say(f"{given.run}: is in MLflow's trash")
    for commit in gone:
        say(f"{trees.REFS}/{commit}: deleted; `git gc --prune=now` deletes its files")
    return 0


def _kept(run: Run) -> set[str]:
    """Return the commits that keep a row's files, without what is no hash in its tags."""
    return {c for c in tagged(run.data.tags, KEPT).values() if trees.is_hash(c)}
