"""A sweep's rows in MLflow. The store is opened as a stage opens it.

MLflow takes a second or two to load, so only the functions that need it do.
"""

import os
import time
import urllib.error
import urllib.request
from collections import defaultdict
from collections.abc import Collection
from urllib.parse import urlsplit

WAIT = 600.0
"""Seconds that a trial waits for a tracking server which does not answer, as while it restarts."""


def wait_for_server() -> None:
    """Return when the tracking server answers, or has not answered for a long time."""
    address = urlsplit(os.environ["MLFLOW_TRACKING_URI"])
    if address.scheme not in {"http", "https"}:
        return
    host = address.netloc.rpartition("@")[2]
    health = f"{address.scheme}://{host}{address.path.rstrip('/')}/health"
    deadline = time.monotonic() + WAIT
    while time.monotonic() < deadline:
        try:
            urllib.request.urlopen(health, timeout=8).close()  # noqa: S310
        except urllib.error.HTTPError:
            return  # something answers
        except OSError:
            time.sleep(1)
        else:
            return


def recorded() -> bool:
    """Whether MLflow has the result that is in data/, with its training."""
    from bridge.record.store import Store
    from bridge.run.files import md5
    from vanilla_lstm.project import EXPERIMENT
    from vanilla_lstm.task.artifacts import MODEL, TEST_DATA

    store, test_data = Store(EXPERIMENT), md5(TEST_DATA)
    with store.errors_reported():
        return any(
            run.data.tags.get("test_data.md5") == test_data and "train/loss" in run.data.metrics
            for run in store.results_of(md5(MODEL))
        )


def settle(experiments: Collection[str], commit: str) -> None:
    """Leave one row for each result of a sweep that has ended, and none that pretends to run.

    A stage ends the lost rows of its own host, but a node that is lost never starts one again. And
    a stage knows of a result that was there before, but not of one at the same time on another
    host, as when two sweeps do the same trial. The experiment's name does not tell the results
    apart: of trials that share a training, one completes the row that the other's training opened.
    """
    from bridge.record import provenance
    from bridge.record.store import Store  # before MLflow, which it sets up
    from vanilla_lstm.project import EXPERIMENT

    # isort: split
    import mlflow

    store = Store(EXPERIMENT)
    client = store.client
    with store.errors_reported():
        rows = [
            run
            for run in mlflow.search_runs(
                [store.experiment_id],
                f"tags.`{provenance.COMMIT}` = '{commit}'",
                order_by=["attributes.start_time ASC"],
                output_format="list",
            )
            if run.data.tags.get(provenance.EXPERIMENT_NAME) in experiments
        ]
        kept: dict[str, dict[str, str]] = defaultdict(dict)  # by model and test data, the oldest
        for run in rows:
            if test_data := run.data.tags.get("test_data.md5"):
                kept[run.data.tags["model.md5"]].setdefault(test_data, run.info.run_id)
        for run in rows:
            run_id, status = run.info.run_id, run.info.status
            results = kept[run.data.tags.get("model.md5", "")]
            if status == "RUNNING":
                client.set_terminated(run_id, "KILLED")
            elif status == "FINISHED" and results and run_id not in results.values():
                client.delete_run(run_id)
