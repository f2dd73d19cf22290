"""A sweep's rows in MLflow."""

import os
from collections.abc import Set

from bridge.record import provenance
from bridge.record.runs import TEST_DATA_MD5, TRAIN_DATA_MD5
from bridge.record.store import MODEL_MD5, Store  # before MLflow, which it sets up
from dvc_mlflow import view
from sweeps.repository import Experiments
from vanilla_lstm.project import COLUMNS, EXPERIMENT
from vanilla_lstm.task.artifacts import MODEL, TEST_DATA

# isort: split
from mlflow.entities import Run

_NAME = provenance.EXPERIMENT_NAME


class Rows:
    """The rows of a commit's experiments; opened before the trials, which would collide here."""

    def __init__(self, commit: str) -> None:
        self.store = Store(EXPERIMENT, COLUMNS)
        self._commit = commit
        # A stage fails at once if the server is down; the driver can wait, as MLflow itself would.
        os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = "7"

    def of(self, there: Experiments) -> dict[str, Run]:
        """Return the row of each experiment's result, if MLflow has it complete with its training.

        Experiments share a row if they differ only in what decides no result.
        """
        rows, found = self._rows(), {}
        for name, (_, stages) in there.items():
            md5s = {out["path"]: out["md5"] for one in stages.values() for out in one["outs"]}
            result = md5s.get(f"{MODEL}", ""), md5s.get(f"{TEST_DATA}", "")
            same = [run for run in rows if _result(run) == result]
            # Otherwise another commit may have made it.
            same = same or [x for x in self.store.results_of(result[0]) if _result(x) == result]
            if same:  # its own row, if it has one
                found[name] = min(same, key=lambda run: run.data.tags.get(_NAME) != name)
        return found

    def settle(self, sweep: str, names: Set[str], there: Experiments) -> dict[str, Run]:
        """Leave one row for each result of these trials, tagged as the sweep's, and return it.

        The tag names all sweeps that a row belongs to, with a space between them.
        Rows of lost nodes are ended: a stage ends only those of its own host. Duplicates are
        deleted: a stage finds earlier results, but none recorded at the same time on another host.
        An experiment's name does not identify its result: of two trials that share a training, one
        completes the row that the other's training opened.
        """
        client = self.store.client
        results = self.of({name: there[name] for name in names & there.keys()})
        kept = {run.info.run_id: (_result(run), run.data.params) for run in results.values()}
        for run in self._rows():
            name, run_id = run.data.tags.get(_NAME), run.info.run_id
            if name not in names or run_id in kept:
                continue
            if run.info.status == "RUNNING":
                client.set_terminated(run_id, "KILLED")
            same = (_result(run), run.data.params) in kept.values()
            if name in results and (same or TEST_DATA_MD5 not in run.data.tags):
                client.delete_run(run_id)
        for run in results.values():  # also those of another sweep
            sweeps = run.data.tags.get(provenance.SWEEP, "").split()
            if sweep not in sweeps:
                client.set_tag(run.info.run_id, provenance.SWEEP, " ".join([*sweeps, sweep]))
        return results

    def url(self, sweep: str) -> str:
        """Return the address of a sweep's table, which is a separate view.

        With a filter in its address, the view of all rows would lose its columns.
        """
        tags = view.tags(COLUMNS, sweep, f"tags.{provenance.SWEEP} LIKE '%{sweep}%'")
        for key, value in tags.items():
            self.store.client.set_experiment_tag(self.store.experiment_id, key, value)
        return self.store.url(table=sweep)

    def _rows(self) -> list[Run]:
        """Return the rows of the commit, the oldest first."""
        of_commit = f"tags.`{provenance.COMMIT}` = '{self._commit}'"
        search, where = self.store.client.search_runs, [self.store.experiment_id]
        return list(search(where, of_commit, max_results=50_000))[::-1]


def _result(run: Run) -> tuple[str, str] | None:
    """Return the md5s of model and test data, if the row is complete."""
    tags = run.data.tags
    complete = run.info.status == "FINISHED" and {TRAIN_DATA_MD5, TEST_DATA_MD5} <= tags.keys()
    return (tags[MODEL_MD5], tags[TEST_DATA_MD5]) if complete else None
