"""The MLflow store: where it is, how it is opened, and how its errors are reported."""

import fcntl
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path

from . import mlflow_settings  # noqa: F401  (before MLflow)

# isort: split
import mlflow
import mlflow.store.db.utils
from mlflow.entities import Experiment, Run, ViewType
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.utils.credentials import get_default_host_creds
from mlflow.utils.rest_utils import http_request
from packaging.version import InvalidVersion, Version

from . import database, processes, view
from .errors import ToolError
from .faults import ERRORS, deadline, is_of_store, masked, once_more, store_error
from .moved import follow
from .repository import DEFAULT, address, default_experiment, own_address

NOTE = "mlflow.note.content"

_SHOWN, _MOST_SHOWN = "dvc.columns", 8
"""The tag with the columns that the tool has chosen, and the limit for metrics and for params."""
_UI = "http://127.0.0.1:5000"  # where `mlflow ui` listens
_OLDEST = "3.0"  # the first version that stores models separately from runs
# Seconds, at most. MLflow's server may wait for its SQLite database for 20.
_ANSWERING, _OPENING, _WRITING = 8, 25, 120


class Store:
    """An experiment in an MLflow store, opened and ready to write; raises `StoreError`.

    `root` is the main repository. Without a name, `experiment` is the default one of the project
    in the repository's `folder`. `columns` are those of the experiment's table, such as
    "metrics.test/loss", sorted by the first: the highest value first, or the lowest with a `-`
    before the name. Without `create`, nothing is written, and `experiment_id` is "" if there is no
    such experiment yet.
    """

    def __init__(
        self,
        root: Path,
        experiment: str = "",
        columns: Sequence[str] = (),
        *,
        folder: str = "",
        create: bool = True,
    ) -> None:
        self.root = root
        self.experiment = experiment or default_experiment(root, folder)
        self.address = address(self.root)
        self._asked: set[str] = set()
        self.is_remote = self.address.startswith("http")
        self._default = "" if experiment or self.address != own_address(root) else folder or "."
        if not (create or exists(root)):
            self.experiment_id = ""
            return
        _use(self.address, self.root)
        with self.lock(), self.errors_reported(_OPENING):
            file = database.file_of(self.address)
            if self.is_remote:
                with self.within(_ANSWERING):
                    self._check_version()
            elif file is None or file.exists():
                database.check_schema(self.address)
            if create and file:
                if self.address == own_address(self.root):
                    follow(self.root)
                database.create(file)
            self.client = mlflow.MlflowClient()
            if create:
                self.experiment_id = once_more(lambda: self._create(columns))
                self._end_dead_rows()
            else:
                found = self._find()
                self.experiment_id = str(found.experiment_id) if found else ""

    @contextmanager
    def errors_reported(self, seconds: int = _WRITING) -> Iterator[None]:
        """Turn errors of the store, and a server's delay, into `StoreError`."""
        try:
            with self.within(seconds):
                yield
        except ERRORS as error:
            if not is_of_store(error):
                raise
            raise store_error(self.address, error) from None

    def within(self, seconds: int) -> AbstractContextManager[object]:
        """Raise `TimeoutError` if a server holds up the block for longer."""
        return deadline(seconds) if self.is_remote else ExitStack()

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Lock the store against others who write to it from this clone."""
        path = self.root / ".dvc" / "tmp"
        with ExitStack() as opened:
            try:
                path.mkdir(parents=True, exist_ok=True)  # in a worktree's main repository
                folder = os.open(path, os.O_RDONLY)
            except OSError as error:
                raise store_error(str(path), error) from None
            opened.callback(os.close, folder)  # the operating system releases a dead process's lock
            fcntl.flock(folder, fcntl.LOCK_EX)
            yield

    def experiments(self) -> list[str]:
        """Return the experiments in which this repository's runs can be.

        In its own database that is any, because a script can choose another.
        """
        if self.address != own_address(self.root):
            return [self.experiment_id]
        return [str(e.experiment_id) for e in self.client.search_experiments()]

    def runs(self, query: str = "", view: int = ViewType.ACTIVE_ONLY) -> Iterator[Run]:
        """Yield the runs in the experiments of this repository."""
        if not self.experiment_id:
            return
        experiments, token = self.experiments(), None
        while True:
            page = self.client.search_runs(experiments, query, view, page_token=token)
            yield from page
            if not (token := page.token):
                return

    def _end_dead_rows(self) -> None:
        """End this clone's RUNNING rows, in any experiment, whose processes have ended."""
        experiments = [e.experiment_id for e in self.client.search_experiments()]
        clone = f"tags.{processes.CLONE} = '{processes.clone(self.root)}'"
        running = f"attributes.status = 'RUNNING' and {clone}"
        for run in self.client.search_runs(experiments, running):
            if processes.has_ended(run.data.tags):
                self.client.set_terminated(run.info.run_id, "KILLED")

    def log_artifacts(self, run: Run, folder: str) -> None:
        """Log the files in a folder; the client's own method would ask for the run once more."""
        get_artifact_repository(run.info.artifact_uri).log_artifacts(folder)

    def url(self, run_id: str = "", table: str = view.RESULTS) -> str:
        """Return the address of a row, or of a view of the table: by default all, best first.

        For a file of a row, `run_id` is `<run id>/artifacts/<path>`.
        """
        start = masked(self.address.rstrip("/")) if self.is_remote else _UI
        page = f"/{run_id}?" if run_id else f"?viewStateShareKey={table}&"
        where = f"experiments/{self.experiment_id}/runs{page}"
        return f"{start}/#/{where}workflowType=machine_learning"

    def _check_version(self) -> None:
        answer = http_request(get_default_host_creds(self.address), "/version", "GET")
        with suppress(InvalidVersion):  # e.g. a gateway's page
            if Version(answer.text[:40]) < Version(_OLDEST):
                raise OSError(f"its version is {answer.text}, older than {_OLDEST}")

    def show(self, columns: Sequence[str]) -> None:
        """Add columns to the table, unless somebody has chosen its columns."""
        if {*columns} <= self._asked:
            return
        self._asked.update(columns)
        tags = self.client.get_experiment(self.experiment_id).tags
        shown = tags.get(_SHOWN, "").splitlines()
        if tags.get(view.KEY) != view.tags(shown).get(view.KEY):
            return
        every = list(dict.fromkeys([*shown, *columns]))
        metrics = [name for name in every if name.startswith("metrics.")][:_MOST_SHOWN]
        params = [name for name in every if name not in metrics and name.startswith("params.")]
        wanted = [*metrics, *params[:_MOST_SHOWN]]
        for key, value in {_SHOWN: "\n".join(wanted), **view.tags(wanted)}.items():
            if tags.get(key) != value:
                self.client.set_experiment_tag(self.experiment_id, key, value)

    def _find(self) -> Experiment | None:
        """Return the experiment if it exists; find a default one by its tag, whatever its name."""
        if self._default:
            for found in self.client.search_experiments(ViewType.ALL):
                if found.tags.get(DEFAULT) == self._default:
                    self.experiment = found.name
                    return found
        return self.client.get_experiment_by_name(self.experiment)

    def _create(self, columns: Sequence[str]) -> str:
        """Return the experiment's id; create it if it does not exist, or restore it."""
        experiment, tags = self._find(), view.tags(columns)
        if self._default:
            tags[DEFAULT] = self._default
        if experiment is None:
            # A server chooses a place for files; a database would use the current folder.
            location = None if self.is_remote else (self.root / "mlartifacts").as_uri()
            return str(self.client.create_experiment(self.experiment, location, tags))
        if experiment.lifecycle_stage == "deleted":
            self.client.restore_experiment(experiment.experiment_id)
        for key, value in tags.items():
            if experiment.tags.get(key) != value:
                self.client.set_experiment_tag(experiment.experiment_id, key, value)
        return str(experiment.experiment_id)


def read_run(root: Path, run_id: str) -> Run:
    """Return a run of the store; raises `ToolError` if there is none with this id."""
    if not re.fullmatch(r"\w+", run_id):
        rule = "RUN must be the run id of a row, as its page in MLflow shows it"
        raise ToolError(f"{rule}; received {run_id!r}")
    if not exists(root):
        raise ToolError(f"{root}: has no mlflow.db, and MLFLOW_TRACKING_URI is not set")
    store = Store(root, create=False)
    with store.errors_reported():
        return store.client.get_run(run_id)


def exists(root: Path) -> bool:
    """Whether there is a store: its database is made with the first row."""
    file = database.file_of(address(root))
    return file is None or file.exists()


def _use(uri: str, root: Path) -> None:
    """Let MLflow use a store, in this process only: MLflow also sets the environment's variable.

    Without it, MLflow 3.0 looks for the artifacts of a server's runs elsewhere.
    """
    # MLflow 3.0 makes this folder, by default mlruns/ in the working directory.
    mlflow.tracking._tracking_service.utils.DEFAULT_LOCAL_FILE_AND_ARTIFACT_PATH = (
        f"{root}/mlartifacts"
    )
    given = os.environ.get("MLFLOW_TRACKING_URI")
    mlflow.set_tracking_uri(uri)
    if given is None:
        os.environ.pop("MLFLOW_TRACKING_URI", None)
    else:
        os.environ["MLFLOW_TRACKING_URI"] = given
