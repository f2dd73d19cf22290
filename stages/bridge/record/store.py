"""The MLflow store: where it is, how it is opened, and how its errors are reported."""

import logging
import os
import re
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path

os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = "false"
os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"

import mlflow
import mlflow.store.db.utils
from mlflow.entities import Run
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SQLAlchemyError

from ..run.errors import TrackingError
from ..run.files import exclusive
from ..run.params import PARAMS
from . import provenance, view

ERRORS = (MlflowException, SQLAlchemyError, OSError, ImportError)
"""Raised when a store is missing, damaged, locked or full, or lacks its driver."""

MODEL_MD5 = "model.md5"
NOTE = "mlflow.note.content"

_UI = "http://127.0.0.1:5000"  # where `mlflow ui` listens


class Store:
    """An experiment in an MLflow store, opened and ready to write; raises `TrackingError`.

    The store is `MLFLOW_TRACKING_URI`, or mlflow.db in the main repository, also from a git
    worktree and from the temporary copies in which DVC runs experiments. A folder within a folder,
    such as properties/claims/one, has an experiment of its own, whose name ends in `-properties`.
    `columns` are those of its table, such as "metrics.test/loss"; the row with the highest value in
    the first one is shown first. `params` is the params file, if there is one.
    """

    def __init__(
        self, experiment: str, columns: Sequence[str] = (), params: str | Path = PARAMS
    ) -> None:
        self.params = Path(params)
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
        name = "-".join([experiment, *provenance.folder().parts[:-1][:1]])
        with self.errors_reported(), self.lock():
            if not given:
                _create_database(self._root / "mlflow.db")
            self.client = mlflow.MlflowClient()
            location = None if given else (self._root / "mlartifacts").as_uri()
            self.experiment_id = self._experiment(name, location, view.tags(columns))
            self._end_rows("KILLED", made_by=provenance.has_ended)

    @contextmanager
    def errors_reported(self) -> Iterator[None]:
        """Raise `TrackingError` for what is wrong with the store."""
        try:
            yield
        except ERRORS as error:
            cure = "start it, or unset MLFLOW_TRACKING_URI"
            if self._address.startswith("sqlite:"):
                cure = "move the file away to begin a new store"
            if getattr(error, "error_code", "") == "INVALID_PARAMETER_VALUE":
                cure = "change what the stage records"
            raise self.error(error, cure) from None

    def error(self, error: Exception, cure: str) -> TrackingError:
        """Return an error of the store as its user reads it: in one line, without passwords."""
        cause = " ".join(_masked(str(error)).split())[:300]
        return TrackingError(_masked(self._address), cause, cure)

    def lock(self) -> AbstractContextManager[None]:
        """Keep the other stages of this machine from the store."""
        return exclusive(self._root / ".dvc" / "tmp", "another stage writes to MLflow")

    def end_own_rows(self, status: str, why: str = "") -> None:
        """Give the rows that this process left RUNNING another status, if the store lets it.

        `why` is an error's last line, which becomes the row's note.
        """
        this_process = provenance.process(os.getpid())
        note = " ".join(_masked(why).split())[:1000]
        with suppress(*ERRORS):
            self._end_rows(status, made_by=lambda process: process == this_process, note=note)

    def results_of(self, model_md5: str) -> list[Run]:
        """Return the finished rows of a model, newest first."""
        finished = f"tags.`{MODEL_MD5}` = '{model_md5}' and attributes.status = 'FINISHED'"
        return list(self.client.search_runs([self.experiment_id], finished))

    def url(self, run_id: str = "") -> str:
        """Return the address of a row, or of the table of all rows, best first."""
        start = _masked(self._address.rstrip("/")) if self._address.startswith("http") else _UI
        page = f"/{run_id}?" if run_id else f"?{view.QUERY}&"
        where = f"experiments/{self.experiment_id}/runs{page}"
        return f"{start}/#/{where}workflowType=machine_learning"

    def _experiment(self, name: str, location: str | None, tags: dict[str, str]) -> str:
        experiment = self.client.get_experiment_by_name(name)
        if experiment is None:
            return str(self.client.create_experiment(name, location, tags))
        if experiment.lifecycle_stage == "deleted":
            self.client.restore_experiment(experiment.experiment_id)
        for key, value in tags.items():
            if experiment.tags.get(key) != value:
                self.client.set_experiment_tag(experiment.experiment_id, key, value)
        return str(experiment.experiment_id)

    def _end_rows(self, status: str, made_by: Callable[[str], bool], note: str = "") -> None:
        """End the rows that still run on this host and whose process is one of those."""
        host = f"tags.{provenance.HOST} = '{socket.gethostname()}'"
        running = f"attributes.status = 'RUNNING' and {host}"
        for run in self.client.search_runs([self.experiment_id], running):
            if made_by(run.data.tags[provenance.PROCESS]):
                if note:
                    self.client.set_tag(run.info.run_id, NOTE, note)
                self.client.set_terminated(run.info.run_id, status)


def _create_database(path: Path) -> None:
    """Create MLflow's database, if there is none, whole or not at all.

    MLflow creates it table by table, and neither uses nor completes half of one.
    """
    if not path.exists():
        partial = path.with_name(f".{path.name}.partial")
        partial.unlink(missing_ok=True)
        mlflow.MlflowClient(f"sqlite:///{partial}").search_experiments(max_results=1)
        partial.replace(path)


def _masked(text: str) -> str:
    """Return text without the user names and passwords of the addresses in it."""
    return re.sub(r"(?<=://)[^\s/]*(?=@)|(?<=password=)[^\s&]+", "***", text)
