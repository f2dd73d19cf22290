"""The MLflow store: where it is, how it is opened, and how its errors are reported."""

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import Self

import mlflow
from mlflow.entities import Run, RunTag, ViewType
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from mlflow.utils.file_utils import local_file_uri_to_path
from mlflow.utils.uri import append_to_uri_path

from .. import processes
from ..errors import ProjectError, StoreError, masked, warn
from ..pipeline.tags import CLONE, DEFAULT, NAME, NAMED
from ..place import address, artifacts_folder, default_experiment, file_of, own_address, own_folder
from . import database, table_view, ui_port
from .git_exclude import hide_store
from .store_errors import is_of_store, retried, store_error

_UI = 5000  # where `ui` listens, unless it is told otherwise
_ROWS = f"{table_view.ROWS} and status != 'FAILED' and status != 'KILLED'"


class Store:
    """An experiment in an MLflow store, for the main repository at `root`: `open` returns one.

    Without a name, `experiment` is the default one of the project in the repository's `folder`.
    """

    def __init__(self, root: Path, experiment: str = "", folder: str = "") -> None:
        self.root = root
        self.address = address(root)
        self.is_remote = self.address.startswith("http")
        # Whether others than this clone may write to it: they have locks of their own.
        self.is_shared = self.address != own_address(root)
        self.experiment = experiment or default_experiment(root, folder)
        self._default = "" if experiment or self.is_shared else folder or "."
        self._locations: dict[str, str] = {}
        """Where experiments keep their files, by id."""
        self.experiment_id = ""
        """It stays "" if `existing` finds no such experiment."""
        self.has_new_table = False
        """Whether `show` has shown the first rows of its table."""
        self._every: list[str] = []
        """All experiments of the store, as they were when it was locked last."""
        self.client: mlflow.MlflowClient

    @classmethod
    def open(
        cls, root: Path, experiment: str = "", columns: Sequence[str] = (), *, folder: str = ""
    ) -> Self:
        """Open a store to write to it, and make what is missing; raises `StoreError`.

        `columns` are those of the experiment's table, such as "metrics.test/loss", sorted by the
        first: the highest value first, or the lowest with a `-` before the name. If there are none,
        `show` adds some.
        """
        store = cls(root, experiment, folder)
        with store.lock(), store.errors_reported():
            if not store.is_remote:
                hide_store(root)
            if file := file_of(store.address):
                database.create(file)
            store._use()
            if file and not store.is_shared:
                database.follow_move(file, root)
            store.experiment_id = retried(lambda: store._create(columns))
        return store

    @classmethod
    def existing(cls, root: Path, experiment: str = "", *, folder: str = "") -> Self:
        """Open a store as far as it is there: nothing is made; raises `StoreError`."""
        store = cls(root, experiment, folder)
        if exists(root):
            with store.errors_reported():
                store._use()
                found = store.client.get_experiment_by_name(store.experiment)
                store.experiment_id = str(found.experiment_id) if found else ""
        return store

    def _use(self) -> None:
        """Let MLflow use the store, in this process only: MLflow also sets the variable."""
        database.check_schema(self.address)
        # MLflow 3.5 makes this folder, by default mlruns/ in the working directory.
        mlflow.tracking._tracking_service.utils.DEFAULT_LOCAL_FILE_AND_ARTIFACT_PATH = str(
            artifacts_folder(self.root)
        )
        uri = os.environ.pop("MLFLOW_TRACKING_URI", None)
        mlflow.set_tracking_uri(self.address)
        os.environ.pop("MLFLOW_TRACKING_URI", None)
        if uri is not None:
            os.environ["MLFLOW_TRACKING_URI"] = uri
        self.client = mlflow.MlflowClient()

    @contextmanager
    def errors_reported(self) -> Iterator[None]:
        """Turn errors of the store into `StoreError`."""
        try:
            yield
        except Exception as error:
            if not is_of_store(error):
                raise
            raise store_error(self.address, error) from None

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Lock the store against others who write to it from this clone.

        A server is used without a lock, and a line says so, if the tool's folder cannot be.
        """
        with ExitStack() as opened:
            try:
                opened.enter_context(processes.Locked(own_folder(self.root)))
            except (OSError, ProjectError) as error:
                if not self.is_remote:
                    raise StoreError(self.address, f"{error}", "make it writable for you") from None
                _warn_once(f"{error}; rows that are written twice at once are there twice")
            self._every = []
            yield

    def experiments(self) -> list[str]:
        """Return the experiments in which this repository's runs can be.

        In its own database that is any, because a script can choose another.
        """
        if not self.experiment_id or self.is_shared:
            return [self.experiment_id] if self.experiment_id else []
        return self.all_experiments()

    def all_experiments(self) -> list[str]:
        """Return all experiments of the store: as many as MLflow gives at once."""
        if not self._every:
            found = self.client.search_experiments(max_results=50_000)
            self._every = [str(each.experiment_id) for each in found]
        return self._every

    def runs(
        self,
        query: str = "",
        view: int = ViewType.ACTIVE_ONLY,
        experiments: Sequence[str] = (),
    ) -> Iterator[Run]:
        """Yield the runs in these experiments, by default in all of this repository."""
        experiments, token = [*experiments] or self.experiments(), None
        while experiments:
            page = self.client.search_runs(experiments, query, view, page_token=token)
            yield from page
            if not page.token:
                return
            if page.token == token:
                raise MlflowException("the server sends the same page of runs again and again")
            token = page.token

    def end_dead_rows(self) -> None:
        """End this clone's RUNNING rows, in any experiment, whose processes have ended.

        A follower at work does it better: it knows how they have ended. Raises `StoreError`.
        """
        if clone := processes.clone(self.root):
            query = f"attributes.status = 'RUNNING' and tags.`{CLONE}` = '{clone}'"
            with self.lock(), self.errors_reported():
                for run in [*self.runs(query, experiments=self.all_experiments())]:
                    if processes.has_ended(run.data.tags):
                        self.client.set_terminated(run.info.run_id, "KILLED")

    def log_artifacts(self, uri: str, folder: str) -> None:
        """Log the files in a folder to a place for which `why_not_there` is "".

        The client's own method would ask for the place once more.
        """
        get_artifact_repository(uri).log_artifacts(folder)

    def why_no_files(self, run: Run) -> str:
        """Return why nothing is written to the place of a run's files, or "" if it can be."""
        return self.why_not_there(run.info.artifact_uri, run.info.experiment_id, run.info.run_id)

    def why_not_there(self, uri: str, experiment_id: str, *ids: str) -> str:
        """Return why nothing is written to the place of a run or a model with such ids, or "".

        A server, or a database that somebody has changed, could name any place of this machine.
        """
        if experiment_id not in self._locations:
            found = self.client.get_experiment(experiment_id)
            self._locations[experiment_id] = found.artifact_location
        location = self._locations[experiment_id]
        if not all(re.fullmatch(r"[\w-]+", each) for each in ids):
            return "MLflow's id of it could be a path"
        if uri != append_to_uri_path(location, *ids, "artifacts"):
            return "MLflow names another place for its files than that of its experiment"
        here = artifacts_folder(self.root).resolve()
        if not (
            self.is_shared or Path(local_file_uri_to_path(location)).resolve().is_relative_to(here)
        ):
            return f"its experiment keeps files elsewhere than in {here}"
        return ""

    def url(self, run_id: str = "", table: str = table_view.RESULTS) -> str:
        """Return the address of a row, or of a view of the table: by default all, best first.

        The address leads somewhere if the store `is_served`.
        """
        start = masked(self.address.rstrip("/"))
        if not self.is_remote:
            port = ui_port.port(self.root, self.address) or _UI
            start = f"http://{ui_port.HOST}:{port}"
        page = f"/{run_id}?" if run_id else f"?viewStateShareKey={table}&"
        where = f"experiments/{self.experiment_id}/runs{page}"
        return f"{start}/#/{where}workflowType=machine_learning"

    @property
    def is_served(self) -> bool:
        """Whether a browser reaches it: by its own server, or by a running `dvc-mlflow ui`."""
        return self.is_remote or bool(ui_port.port(self.root, self.address))

    def row_line(self, name: str, run_id: str) -> str:
        """Return the line that says where a row is, or only its name if it is not served."""
        return f"row {name!r}" + (f": {self.url(run_id)}" if self.is_served else "")

    def show(self, measures: Sequence[str] = ()) -> dict[str, str]:
        """Show the newest rows in the table, unless somebody chose its columns; tell rows apart.

        `measures` are metrics of its rows, with signs (`pipeline.measures`); it remembers those
        that it was given before. Return the new names of rows, by run id.
        """
        shown = self.client.get_experiment(self.experiment_id).tags.get(table_view.KEY)
        self.has_new_table = self.has_new_table or shown is None
        runs = self.client.search_runs(
            [self.experiment_id], _ROWS, max_results=200, order_by=["attributes.start_time DESC"]
        )
        names = dict(table_view.told_apart(runs))
        for run_id, name in names.items():
            self.client.log_batch(run_id, tags=[RunTag(NAME, name), RunTag(NAMED, name)])
        if (earlier := table_view.default_measures(shown)) is None:
            return names
        # Of a metric that was given twice, the sign that was said last counts.
        every = {measure[1:]: measure for measure in [*measures, *earlier, *measures]}
        ((key, value),) = table_view.by_default([r.data for r in runs], [*every.values()]).items()
        if value != shown:
            self.tag(key, value)
        return names

    def tag(self, key: str, value: str) -> None:
        """Give the experiment a tag, if it exists; others may do the same at the same time."""
        if self.experiment_id:
            retried(lambda: self.client.set_experiment_tag(self.experiment_id, key, value))

    def tagged(self, key: str) -> str:
        """Return a tag of the experiment, or "" if there is none."""
        if not self.experiment_id:
            return ""
        return str(self.client.get_experiment(self.experiment_id).tags.get(key, ""))

    def _create(self, columns: Sequence[str]) -> str:
        """Return the experiment's id; create it if it does not exist, or restore it."""
        experiment = self.client.get_experiment_by_name(self.experiment)
        tags = table_view.view_tags(columns)
        if self._default:
            tags[DEFAULT] = self._default
        if experiment is None:
            # A server chooses a place for files; a database would use the current folder.
            location = None if self.is_remote else artifacts_folder(self.root).as_uri()
            return str(self.client.create_experiment(self.experiment, location, tags))
        if experiment.lifecycle_stage == "deleted":
            self.client.restore_experiment(experiment.experiment_id)
        for key, value in tags.items():
            if experiment.tags.get(key) != value:
                self.client.set_experiment_tag(experiment.experiment_id, key, value)
        return str(experiment.experiment_id)


class ExperimentStores:
    """The experiments of a project's rows, each opened once; iteration yields those opened.

    `root` is the main repository, and `folder` the project in it. Without `create`, nothing is
    written.
    """

    def __init__(self, root: Path, folder: str, *, create: bool = True) -> None:
        self.root, self._folder, self._create = root, folder, create
        self._opened: dict[str, Store] = {}

    def __iter__(self) -> Iterator[Store]:
        yield from self._opened.values()

    def of(self, name: str, columns: Sequence[str] = ()) -> Store:
        """Return the store of an experiment by its name in dvc.yaml; "" is the default one.

        `columns` are those that dvc.yaml chooses for its table. Raises `StoreError`.
        """
        if name not in self._opened:
            if self._create:
                store = Store.open(self.root, name, columns, folder=self._folder)
            else:
                store = Store.existing(self.root, name, folder=self._folder)
            self._opened[name] = store
        return self._opened[name]


def exists(root: Path) -> bool:
    """Whether there is a store: its database is made with the first row."""
    file = file_of(address(root))
    return file is None or file.exists()


_warn_once = cache(warn)
