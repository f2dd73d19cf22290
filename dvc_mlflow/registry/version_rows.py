"""The row and the model of a version that git's tags register, by the results of its commit."""

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Self

from ..errors import ProjectError
from ..pipeline.declarations import Declarations
from ..pipeline.keys import model_names
from ..pipeline.row_stages import names_recorded
from ..pipeline.stages import Output, Pipeline, Stage
from ..pipeline.stored_run import StoredRun
from ..project import Project, ProjectAt
from ..rows.origin import of_commit
from ..rows.result import Result, experiment, now_or_none, of
from ..store.experiment_stores import ExperimentStores
from ..store.models import of_run
from ..store.store import Store

if TYPE_CHECKING:
    from ..project.gto_tags import Version


class Found(NamedTuple):
    """Where MLflow has the model of a version."""

    run_id: str = ""
    model_id: str = ""
    why: str = ""
    """Why it has none; "" if the version is of another kind of artifact, such as a data set."""


class _UnknownError(Exception):
    """MLflow cannot show a version; the message says why."""


class VersionRows:
    """The results of commits, and their rows in the store."""

    def __init__(self, project: Project, root: Path, store: Store) -> None:
        self._project, self._store, self._past = project, store, ProjectAt(project)
        self._now, self._declared = now_or_none(project), Declarations()
        if self._now:
            self._declared.add_checkout(self._now)
        self._stores = ExperimentStores(root, project.folder, create=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._past.leave()

    def find(self, version: "Version") -> Found:
        """Return the run and the logged model of a version."""
        try:
            pipeline = self._pipeline(version.commit)
            stage, output = self._maker(pipeline, version)
            cure = "has no row of its result; `dvc-mlflow record --all` adds what it can read"
            for result in self._results(pipeline, stage, output, version.commit):
                known = self._row(result, stage)
                if known is not None and not known.is_deleted:
                    return Found(known.run_id, self._model(known.run_id, result, output))
                if known is not None:
                    cure = (
                        "has its row in the trash; `dvc-mlflow record --all --deleted` restores it"
                    )
        except _UnknownError as error:
            return Found(why=f"{error}")
        return Found(why=f"MLflow {cure}")

    def _row(self, result: Result, stage: Stage) -> StoredRun | None:
        """Return the row of a result, or else one that has what this stage has made of it.

        A row remains incomplete while metrics downstream of the model are only in DVC's remote.
        """
        runs = self._stores.runs(experiment(result.row_stages))
        with self._store.errors_reported():
            if known := runs.find(result.digests).has:
                return known
            parts = result.row_stages.parts.items()
            own = [name for name, stages in parts if stage.name in {each.name for each in stages}]
            return runs.find({name: result.digests[name] for name in own}).has

    def _pipeline(self, commit: str) -> Pipeline:
        """Return the pipeline of a commit, with the models that the checkout says how to load."""
        from ..project import gto_tags

        try:
            found = self._past.at(commit, commit, gto_tags.locks(self._project, commit))
        except ProjectError as error:
            raise _UnknownError(f"commit {commit[:7]} cannot be read: {error}") from None
        return self._declared.applied(found, {})

    def _maker(self, pipeline: Pipeline, version: "Version") -> tuple[Stage, Output]:
        """Return the stage that makes the model of a version, and the output that it is in."""
        name = version.artifact
        for stage in pipeline.stages.values():
            for output in stage.outs:
                if name in model_names(pipeline, stage, output):
                    return stage, output
        from ..project import gto_tags

        declared = gto_tags.declared(self._project)
        if name not in declared:
            raise _UnknownError(f"dvc.yaml at its commit has no {name!r} in artifacts")
        if declared[name] != "model":
            raise _UnknownError("")
        raise _UnknownError(f"no stage of dvc.yaml at its commit makes {name!r}")

    def _results(
        self, pipeline: Pipeline, stage: Stage, output: Output, commit: str
    ) -> list[Result]:
        """Return the results of a commit that have the model in an output of a stage."""
        chosen = names_recorded(pipeline, self._now)
        state = of(self._project, pipeline, of_commit(self._project.top, commit), chosen)
        paths = [(each, {out.path for _, _, out in each.models()}) for each in state.results()]
        if found := [each for each, models in paths if output.path in models]:
            return found
        why = state.reasons.get(stage.name, "no recorded stage has it in its row")
        raise _UnknownError(f"its commit has no result of stage {stage.name}: {why}")

    def _model(self, run_id: str, result: Result, output: Output) -> str:
        """Return the logged model of a row that has the bytes of an output, the newest one."""
        client = self._store.client
        with self._store.errors_reported():
            found = of_run(client, client.get_run(run_id), {output.md5})
        if not found:
            own = [model for _, model, out in result.models() if out.path == output.path]
            cure = "its meta in dvc.yaml must have a loader_module"
            if any(model.loader_module for model in own):
                cure = "`dvc-mlflow record --all --fetch` looks for its bytes in DVC's remote"
            raise _UnknownError(f"its row has no model that MLflow can serve; {cure}")
        return found[-1]
