"""The MLflow store, with what only the bridge needs: its errors, its names and its models."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from dvc_mlflow import store as tool  # before MLflow, which it sets up

# isort: split
from mlflow.entities import DatasetInput, LoggedModelOutput, Run

from dvc_mlflow import repository
from dvc_mlflow.faults import once_more

from ..run.files import exclusive
from ..run.params import PARAMS
from . import provenance
from .errors import stage_errors

MODEL_MD5 = "model.md5"

address = stage_errors()(repository.address)


class Store(tool.Store):
    """An experiment in an MLflow store, opened and ready to write; raises `TrackingError`.

    The store is `MLFLOW_TRACKING_URI`, or mlflow.db in the main repository, even from a git
    worktree or one of the temporary copies in which DVC runs experiments. A nested folder, such as
    properties/claims/one, has a separate experiment, whose name ends in `-properties`. `columns`
    are as in `dvc_mlflow`. `params` is the params file, if any.
    """

    @stage_errors()
    def __init__(
        self, experiment: str, columns: Sequence[str] = (), params: str | Path = PARAMS
    ) -> None:
        self.params = Path(params)
        name = "-".join([experiment, *provenance.folder().parts[:-1][:1]])
        super().__init__(repository.main_repository(), name, columns)

    @contextmanager
    def errors_reported(self, *seconds: int) -> Iterator[None]:
        """Turn errors of the store, and a server's delay, into `TrackingError`."""
        with stage_errors(), super().errors_reported(*seconds):
            yield

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Lock the store against other stages on this machine; raises `FileError`."""
        with exclusive(self.root / ".dvc" / "tmp", "another stage writes to MLflow"):
            yield

    def log_inputs(self, run_id: str, inputs: Sequence[DatasetInput]) -> None:
        """Add data sets to a run."""
        once_more(lambda: self.client.log_inputs(run_id, list(inputs)))

    def results_of(self, model_md5: str) -> list[Run]:
        """Return the finished rows of a model, newest first."""
        finished = f"tags.`{MODEL_MD5}` = '{model_md5}' and attributes.status = 'FINISHED'"
        return list(self.client.search_runs([self.experiment_id], finished))

    def model_uri(self, run_id: str) -> str:
        """Return the address of a row's model in MLflow, or "" if it could not be served."""
        models = self.models(run_id)
        return f"models:/{models[-1].model_id}" if models else ""

    def models(self, run_id: str) -> list[LoggedModelOutput]:
        """Return the models that a run has logged; searches of MLflow 3.0 leave them out."""
        outputs = self.client.get_run(run_id).outputs
        return list(outputs.model_outputs) if outputs else []
