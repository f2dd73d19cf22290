"""A sweep's rows in MLflow."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import replace
from typing import TYPE_CHECKING

from ..store import Store  # before MLflow, which it sets up

# isort: split
from mlflow.entities import Run
from tqdm import tqdm

from .. import identity, placing, rows, state, view
from ..content import fetch
from ..errors import ProjectError, warn
from ..origin import COMMIT, EXPERIMENT, SWEEP
from ..project import Project
from ..protocol import TOKEN
from ..repository import main_repository
from ..rows import REPRODUCES
from ..sending import log
from ..tags import BEGUN, COMPLETE, KEPT, TREE, tagged
from .results import Experiments

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Found = dict[str, Sequence[Run]]
"""The rows of trials, by name; each has one for each of its results, or none."""

_Results = frozenset[tuple[str, str]]  # digests, with the names that they have in a row


class Table:
    """The rows of a commit's experiments.

    It is opened before the trials, which would all try to create the same MLflow experiment.
    """

    def __init__(self, project: Project, commit: str, experiments: Experiments) -> None:
        self._project, self._commit, self._experiments = project, commit, experiments
        self._stores: dict[str, Store] = {}
        self.columns: list[str] = []
        """Those that dvc.yaml chooses for the table."""
        pipeline = project.pipeline()
        for row in identity.rows(pipeline, identity.recorded(pipeline)):
            self._store(state.experiment(row), state.columns(row))
            self.columns += state.columns(row)
        if not self._stores:
            raise ProjectError("dvc.yaml has no metrics, curves or models, so trials have no rows")
        # All are at one address, so the client of any reaches the experiments of the others.
        self.store = next(iter(self._stores.values()))
        # A stage does not wait for a server that is down, but the driver can, as MLflow would.
        os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = "7"

    def _store(self, experiment: str, columns: Sequence[str] = ()) -> Store:
        if experiment not in self._stores:
            root, folder = main_repository(), self._project.folder
            self._stores[experiment] = Store(root, experiment, columns, folder=folder)
        return self._stores[experiment]

    def find(self, names: Iterable[str], *, at_once: bool = True) -> Found:
        """Return the rows of those trials that git has; none where MLflow lacks a result.

        Missing rows are recorded from git first. All rows of the commit are read `at_once`, or else
        those of each trial by themselves, which is faster for a few trials.
        """
        # Of several with the same results, the oldest.
        known = {_results(run): run for run in self._runs()} if at_once else {}
        found: Found = {}
        for name in [name for name in names if name in self._experiments.there]:
            own = self._rows(name, known)
            if None in own:
                self._record(name)
                own = self._rows(name, known)
            found[name] = [run for run in own if run] if None not in own else []
        return found

    def _rows(self, name: str, known: Mapping[_Results, Run]) -> list[Run | None]:
        """Return the row with each result of a trial, whichever trial or commit has made it."""
        found: list[Run | None] = []
        for experiment, digests in self._experiments.there[name].rows:
            run, store = known.get(frozenset(digests.items())), self._store(experiment)
            if run is None:
                with store.errors_reported():
                    has = placing.find(store, digests).has
                    run = store.client.get_run(has.run_id) if has and not has.is_deleted else None
            found.append(run)
        return found

    def _record(self, name: str) -> None:
        """Make the rows of an experiment that MLflow lacks, with files from the DVC remote."""
        with tqdm.external_write_mode():  # only to print, as DVC's threads need its lock
            print(f"{name} is recorded from git and DVC, as MLflow lacks it", flush=True)
        commit = self._experiments.there[name].commit
        with self._project.at(commit):
            found = state.read(self._project, commit)
            # As if the trial itself had made it.
            origin = found.origin._replace(commit=self._commit, experiment=name)
            found = replace(found, origin=origin)
            for row in found.rows():
                notes = fetch(self._project, found.pipeline, row, [*found.wanted(row)])
                store = self._store(state.experiment(row), state.columns(row))
                with store.lock(), store.errors_reported(rows.AT_MOST):
                    notes += rows.write(store, found, row, undelete=True).notes
                with tqdm.external_write_mode():
                    for note in notes:
                        warn(f"{name}: {note}")

    def settle(self, sweep: str, names: Set[str], found: Found) -> None:
        """Leave one row for each result of these trials, tagged as the sweep's.

        The tag names all sweeps that a row belongs to, with a space between them. Rows of lost
        nodes are ended: the tool ends only those of its own clone. Duplicates are deleted: a stage
        finds earlier results, but none recorded at the same time on another node. A row then names
        its experiment's commit, which everybody can fetch, and not one that only a node has.
        """
        pairs = [(run, name) for name, own in found.items() for run in own]
        pairs.sort(key=lambda pair: pair[0].data.tags.get(EXPERIMENT) == pair[1])
        kept = {run.info.run_id: (run, name) for run, name in pairs}  # its own trial is the last
        for run in self._runs():
            tags, run_id = run.data.tags, run.info.run_id
            if (name := tags.get(EXPERIMENT)) not in names or run_id in kept:
                continue
            has = {**tagged(tags, BEGUN), **tagged(tags, COMPLETE)}.items()
            same = [row for row in found.get(name, ()) if has <= _results(row)]
            with self.store.errors_reported():
                if run.info.status == "RUNNING":
                    self.store.client.set_terminated(run_id, "KILLED")
                if same and TOKEN in tags:  # a script's own run: only the script can make it again
                    self.store.client.set_tag(run_id, REPRODUCES, same[0].info.run_id)
                elif same:
                    self.store.client.delete_run(run_id)
        with self.store.errors_reported():
            for run, name in kept.values():  # also those of another sweep
                tags, result = run.data.tags, self._experiments.there[name]
                new = {SWEEP: " ".join(dict.fromkeys([*tags.get(SWEEP, "").split(), sweep]))}
                is_own = tags.get(COMMIT) == self._commit  # not an earlier commit's
                for stage in tagged(tags, COMPLETE) if is_own else ():
                    new |= {f"{TREE}{stage}": result.tree, f"{KEPT}{stage}": result.commit}
                if not new.items() <= tags.items():
                    log(self.store, run.info.run_id, tags=new)

    def urls(self, sweep: str, metric: str, varied: Iterable[str]) -> Iterator[str]:
        """Yield the addresses of a sweep's tables, one for each MLflow experiment.

        They show the metric, the columns in dvc.yaml and the params that the sweep varies. Each is
        a view of its own, because a filter in the address of the usual one would drop its columns.
        """
        first = f"metrics.{metric.removeprefix('-')}"
        others = [name for name in self.columns if name.removeprefix("-") != first]
        others += [f"params.{key}" for key in varied]
        columns = ["-" * metric.startswith("-") + first, *dict.fromkeys(others)]
        ((key, value),) = view.tags(columns, sweep, f"tags.{SWEEP} LIKE '%{sweep}%'").items()
        for store in self._stores.values():
            with store.errors_reported():
                store.client.set_experiment_tag(store.experiment_id, key, value)
            yield store.url(table=sweep)

    def keep(self, run: Run, path: str, picture: "Figure") -> str:
        """Log a picture as a file of a row; return its address."""
        run_id, stores = run.info.run_id, self._stores.values()
        own = (store for store in stores if store.experiment_id == run.info.experiment_id)
        with self.store.errors_reported():
            self.store.client.log_figure(run_id, picture, path)
        return next(own, self.store).url(f"{run_id}/artifacts/{path}")

    def model(self, run: Run) -> str:
        """Return the address of a row's model, or "" if MLflow has none."""
        with self.store.errors_reported():
            outputs = self.store.client.get_run(run.info.run_id).outputs
        models = outputs.model_outputs if outputs else []
        return f"models:/{models[0].model_id}" if models else ""

    def _runs(self) -> list[Run]:
        """Return the rows of the commit, the newest first."""
        experiments = [store.experiment_id for store in self._stores.values()]
        of_commit = f"tags.`{COMMIT}` = '{self._commit}'"
        with self.store.errors_reported():
            return list(self.store.client.search_runs(experiments, of_commit, max_results=50_000))


def _results(run: Run) -> _Results:
    """Return the results that a row has."""
    return frozenset(tagged(run.data.tags, COMPLETE).items())
