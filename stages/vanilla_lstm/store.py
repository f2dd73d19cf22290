"""The MLflow store: where it is, how it is opened, how its faults are told, how its table looks."""

import base64
import json
import logging
import os
import re
import socket
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any

os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = "false"
os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"

import mlflow
import mlflow.store.db.utils
from mlflow.entities import DatasetInput, Run
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SQLAlchemyError

from vanilla_lstm import provenance, stage
from vanilla_lstm.errors import TrackingError
from vanilla_lstm.params import parse_params

EXPERIMENT = "vanilla-lstm"
FAULTS = (MlflowException, SQLAlchemyError, OSError, ImportError)
"""What a store raises that is not there, damaged, locked or full, or whose driver is missing."""

_UI = "http://127.0.0.1:5000"  # where `mlflow ui` listens
_VIEW = "results"
_COLUMNS = [
    *(f"metrics.`test/{name}`" for name in ("accuracy", "correctly_classified", "loss")),
    *(f"params.`{name}`" for name in ("model.cell", "model.units", "train.epochs")),
    *(f"params.`{name}`" for name in ("train.learning_rate", "data.n_steps")),
]


class Store:
    """The experiment of this pipeline in an MLflow store, opened and ready to write.

    The store is `MLFLOW_TRACKING_URI`, or mlflow.db in the main repository, also from a git
    worktree and from the temporary copies in which DVC runs experiments. What runs in a folder of
    properties/, with that folder's params.yaml, has the experiment `vanilla-lstm-properties`.
    Raises `TrackingError`.
    """

    def __init__(self) -> None:
        for name in ("mlflow", "alembic"):
            logging.getLogger(name).setLevel(logging.WARNING)
        # It logs, with a traceback, what it raises.
        logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
        # MLflow would wait minutes for a store that is not there.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "8")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        mlflow.store.db.utils.MAX_RETRY_COUNT = 4
        self._root = provenance.main_repository()
        given = os.environ.get("MLFLOW_TRACKING_URI")
        self._address = given or f"sqlite:///{self._root}/mlflow.db"
        mlflow.set_tracking_uri(self._address)
        name = "-".join([EXPERIMENT, *provenance.folder().parts[:-1]])
        with self.faults_told(), self.lock():
            if not given:
                _create_database(self._root / "mlflow.db")
            self.client = mlflow.MlflowClient()
            location = None if given else (self._root / "mlartifacts").as_uri()
            self.experiment_id = self._experiment(name, location)
            self._end_rows("KILLED", made_by=provenance.has_ended)

    @contextmanager
    def faults_told(self) -> Iterator[None]:
        """Raise `TrackingError` for what is wrong with the store."""
        try:
            yield
        except FAULTS as error:
            cure = "start it, or unset MLFLOW_TRACKING_URI"
            if self._address.startswith("sqlite:"):
                cure = "move the file away to begin a new store"
            raise self.fault(error, cure) from None

    @contextmanager
    def ending_rows(self) -> Iterator[None]:
        """Should the block fail or be stopped, leave no row of this process RUNNING.

        What it writes has to be uninterrupted: a transaction that is cut off locks the database.
        """
        try:
            yield
        except BaseException:
            status = "KILLED" if stage.stopped() else "FAILED"
            this_process = provenance.process(os.getpid())
            with suppress(*FAULTS):
                self._end_rows(status, made_by=lambda process: process == this_process)
            raise

    def fault(self, error: Exception, cure: str) -> TrackingError:
        """Return an error of the store as its user is told: in one line, without passwords."""
        cause = " ".join(_masked(str(error)).split())[:300]
        return TrackingError(_masked(self._address), cause, cure)

    def lock(self) -> AbstractContextManager[None]:
        """Keep the other stages of this machine from the store."""
        return stage.exclusive(self._root / ".dvc" / "tmp", "another stage writes to MLflow")

    def results_of(self, model_md5: str) -> list[Run]:
        """Return the finished rows of a model, newest first."""
        finished = f"tags.`model.md5` = '{model_md5}' and attributes.status = 'FINISHED'"
        return list(self.client.search_runs([self.experiment_id], finished))

    def create_run(
        self,
        params_text: str,
        params: dict[str, Any],
        tags: dict[str, str],
        texts: dict[str, str],
        inputs: Sequence[DatasetInput] = (),
    ) -> str:
        """Open a row, named after `params_text`, and return its run id."""
        title = provenance.title(parse_params(params_text))
        run = self.client.create_run(
            self.experiment_id, run_name=title, tags={**tags, **provenance.origin()}
        )
        run_id: str = run.info.run_id
        mlflow.log_params(params, run_id=run_id)
        self.client.log_inputs(run_id, list(inputs))
        for name, text in texts.items():
            self.client.log_text(run_id, text, name)
        return run_id

    def url(self, run_id: str = "") -> str:
        """Return the address of a row, or of the table of all rows, best first."""
        start = _masked(self._address.rstrip("/")) if self._address.startswith("http") else _UI
        page = f"/{run_id}?" if run_id else f"?viewStateShareKey={_VIEW}&"
        where = f"experiments/{self.experiment_id}/runs{page}"
        return f"{start}/#/{where}workflowType=machine_learning"

    def _experiment(self, name: str, location: str | None) -> str:
        key, view = f"mlflow.sharedViewState.{_VIEW}", _view()
        experiment = self.client.get_experiment_by_name(name)
        if experiment is None:
            return str(self.client.create_experiment(name, location, {key: view}))
        if experiment.lifecycle_stage == "deleted":
            self.client.restore_experiment(experiment.experiment_id)
        if experiment.tags.get(key) != view:
            self.client.set_experiment_tag(experiment.experiment_id, key, view)
        return str(experiment.experiment_id)

    def _end_rows(self, status: str, made_by: Callable[[str], bool]) -> None:
        """End the rows that still run on this host and whose process is one of those."""
        running = f"attributes.status = 'RUNNING' and tags.host = '{socket.gethostname()}'"
        for run in self.client.search_runs([self.experiment_id], running):
            if made_by(run.data.tags["process"]):
                self.client.set_terminated(run.info.run_id, status)


def _create_database(path: Path) -> None:
    """Make MLflow's database, if there is none, whole or not at all.

    MLflow makes it table by table, and a half-made one it neither uses nor completes.
    """
    if not path.exists():
        partial = path.with_name(f".{path.name}.partial")
        partial.unlink(missing_ok=True)
        mlflow.MlflowClient(f"sqlite:///{partial}").search_experiments(max_results=1)
        partial.replace(path)


def _view() -> str:
    """Return what MLflow's page stores when a view of the table is shared: columns and order."""
    state = {"selectedColumns": _COLUMNS, "orderByKey": _COLUMNS[0], "orderByAsc": False}
    packed = base64.b64encode(zlib.compress(json.dumps(state).encode())).decode()
    view = {"name": "Results", "createdAt": 0, "updatedAt": 0, "state": f"deflate;{packed}"}
    return json.dumps(view)


def _masked(text: str) -> str:
    """Return text without the user names and passwords of the addresses in it."""
    return re.sub(r"(?<=://)[^\s/]*(?=@)|(?<=password=)[^\s&]+", "***", text)
