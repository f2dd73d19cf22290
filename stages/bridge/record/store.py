"""The MLflow store: where it is, how it is opened, and how its errors are reported."""

import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path

os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = "false"
os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"

import mlflow
import mlflow.store.db.utils
from mlflow.entities import DatasetInput, LoggedModelOutput, Run
from mlflow.utils.credentials import get_default_host_creds
from mlflow.utils.rest_utils import http_request
from packaging.version import InvalidVersion, Version

from ..run.files import exclusive
from ..run.params import PARAMS
from . import processes, provenance, view
from .faults import ERRORS, deadline, masked, once_more, tracking_error
from .moved import follow

MODEL_MD5 = "model.md5"
NOTE = "mlflow.note.content"

_UI = "http://127.0.0.1:5000"  # where `mlflow ui` listens
_OLDEST = "3.0"  # the first version that stores models separately from runs
_OPENING, _WRITING = 15, 120  # seconds, at most


class Store:
    """An experiment in an MLflow store, opened and ready to write; raises `TrackingError`.

    The store is `MLFLOW_TRACKING_URI`, or mlflow.db in the main repository, even from a git
    worktree or one of the temporary copies in which DVC runs experiments. A nested folder, such as
    properties/claims/one, has a separate experiment, whose name ends in `-properties`. `columns`
    are those of its table, such as "metrics.test/loss", sorted by the first: the highest value
    first, or the lowest with a `-` before the name. `params` is the params file, if any.
    """

    def __init__(
        self, experiment: str, columns: Sequence[str] = (), params: str | Path = PARAMS
    ) -> None:
        self.params = Path(params)
        for name in ("mlflow", "alembic"):
            logging.getLogger(name).setLevel(logging.WARNING)
        # MLflow also logs, with a traceback, the errors that it raises here.
        logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
        # MLflow would wait minutes for a store that does not answer.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "8")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        mlflow.store.db.utils.MAX_RETRY_COUNT = 4
        self.root = provenance.main_repository()
        self.address = address(self.root)
        self._remote = self.address.startswith("http")
        mlflow.set_tracking_uri(self.address)
        self._name = experiment
        name = "-".join([experiment, *provenance.folder().parts[:-1][:1]])
        with self.lock(), self.errors_reported(_OPENING):
            if self._remote:
                self._check_version()
            elif self.address == own_address(self.root):
                follow(self.root)
                _create_database(self.root / "mlflow.db")
            self.client = mlflow.MlflowClient()
            self.experiment_id = once_more(lambda: self._experiment(name, view.tags(columns)))
            self._end_rows("KILLED", processes.has_ended)

    @contextmanager
    def errors_reported(self, seconds: int = _WRITING) -> Iterator[None]:
        """Turn errors of the store, and a server's delay, into `TrackingError`."""
        try:
            with self.within(seconds):
                yield
        except ERRORS as error:
            raise tracking_error(self.address, error) from None

    def within(self, seconds: int) -> AbstractContextManager[object]:
        """Raise `TimeoutError` if a server holds up the block for longer."""
        return deadline(seconds) if self._remote else ExitStack()

    def lock(self) -> AbstractContextManager[None]:
        """Lock the store against other stages on this machine."""
        return exclusive(self.root / ".dvc" / "tmp", "another stage writes to MLflow")

    def end_own_rows(self, status: str, why: str = "") -> None:
        """Give the rows that this process left RUNNING another status, if the store works.

        `why` is an error's last line, which becomes the row's note.
        """
        own, note = processes.process(os.getpid()), " ".join(masked(why).split())[:1000]
        with suppress(*ERRORS), self.within(_OPENING):
            self._end_rows(status, lambda tags: tags.get(processes.PROCESS) == own, note)

    def log_inputs(self, run_id: str, inputs: Sequence[DatasetInput]) -> None:
        """Add data sets to a run."""
        once_more(lambda: self.client.log_inputs(run_id, list(inputs)))

    def results_of(self, model_md5: str) -> list[Run]:
        """Return the finished rows of a model, newest first."""
        finished = f"tags.`{MODEL_MD5}` = '{model_md5}' and attributes.status = 'FINISHED'"
        return list(self.client.search_runs([self.experiment_id], finished))

    def url(self, run_id: str = "", table: str = view.RESULTS) -> str:
        """Return the address of a row, or of a view of the table: by default all, best first."""
        start = masked(self.address.rstrip("/")) if self._remote else _UI
        page = f"/{run_id}?" if run_id else f"?viewStateShareKey={table}&"
        where = f"experiments/{self.experiment_id}/runs{page}"
        return f"{start}/#/{where}workflowType=machine_learning"

    def model_uri(self, run_id: str) -> str:
        """Return the address of a row's model in MLflow, or "" if it could not be served."""
        models = self.models(run_id)
        return f"models:/{models[-1].model_id}" if models else ""

    def models(self, run_id: str) -> list[LoggedModelOutput]:
        """Return the models that a run has logged; searches of MLflow 3.0 leave them out."""
        outputs = self.client.get_run(run_id).outputs
        return list(outputs.model_outputs) if outputs else []

    def _check_version(self) -> None:
        answer = http_request(get_default_host_creds(self.address), "/version", "GET")
        with suppress(InvalidVersion):  # e.g. a gateway's page
            if Version(answer.text[:40]) < Version(_OLDEST):
                raise ValueError(f"its version is {answer.text}, older than {_OLDEST}")

    def _experiment(self, name: str, tags: dict[str, str]) -> str:
        experiment = self.client.get_experiment_by_name(name)
        if experiment is None:
            # A server chooses a place for files; a database would use the current folder.
            location = None if self._remote else (self.root / "mlartifacts").as_uri()
            return str(self.client.create_experiment(name, location, tags))
        if experiment.lifecycle_stage == "deleted":
            self.client.restore_experiment(experiment.experiment_id)
        for key, value in tags.items():
            if experiment.tags.get(key) != value:
                self.client.set_experiment_tag(experiment.experiment_id, key, value)
        return str(experiment.experiment_id)

    def _end_rows(
        self, status: str, ended: Callable[[Mapping[str, str]], bool], note: str = ""
    ) -> None:
        """End this clone's RUNNING rows, in any folder, if `ended` is true of their tags."""
        like = f"name LIKE '{self._name}%'"
        experiments = self.client.search_experiments(filter_string=like)
        clone = f"tags.{processes.CLONE} = '{processes.clone(self.root)}'"
        running = f"attributes.status = 'RUNNING' and {clone}"
        for run in self.client.search_runs([e.experiment_id for e in experiments], running):
            if ended(run.data.tags):
                if note:
                    self.client.set_tag(run.info.run_id, NOTE, note)
                self.client.set_terminated(run.info.run_id, status)


def address(root: Path) -> str:
    """Return the address of the store: `MLFLOW_TRACKING_URI`, or the main repository's own.

    A relative path is taken from the main repository, because DVC's temporary copies are deleted.
    Raises `TrackingError` if MLflow would misread the repository's path.
    """
    given = os.environ.get("MLFLOW_TRACKING_URI", "")
    if not given and set("?#%") & set(str(root)):
        error = ValueError("the path of the repository must not contain ?, # or %")
        raise tracking_error(str(root), error, "move it, or set MLFLOW_TRACKING_URI")
    scheme, slashes, path = given.partition(":///")
    if scheme == "sqlite" and slashes and not path.startswith(("/", "file:")):
        return f"sqlite:///{root / path}"
    return given or own_address(root)


def own_address(root: Path) -> str:
    """Return the address of the database in the main repository."""
    return f"sqlite:///{root}/mlflow.db"


def _create_database(path: Path) -> None:
    """Create MLflow's database, whole or not at all, if it does not exist.

    MLflow creates it table by table and can neither use nor complete a half-made one.
    """
    if not path.exists():
        partial = path.with_name(f".{path.name}.partial")
        partial.unlink(missing_ok=True)
        mlflow.MlflowClient(f"sqlite:///{partial}").search_experiments(max_results=1)
        partial.replace(path)
