"""A sweep's rows in MLflow."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import replace
from typing import TYPE_CHECKING

# isort: split
from mlflow.entities import Run
from tqdm import tqdm

from ..errors import ProjectError, warn
from ..follow.recording import bring
from ..pipeline.lineages import lineages, recorded
from ..pipeline.tags import (
    BEGUN,
    CHANGE,
    COMMIT,
    COMPLETE,
    EXPERIMENT,
    IN_SWEEP,
    KEPT,
    REPRODUCES,
    SWEEP,
    TOKEN,
    TREE,
    tagged,
    value,
)
from ..place import main_repository
from ..project import Project
from ..rows.content import fetch
from ..rows.result import columns, experiment, read
from ..store import table_view
from ..store.runs import Runs
from ..store.sending import log
from ..store.stores import AT_MOST, Stores
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
        self._stores = Stores(main_repository(), project.folder)
        self.columns: list[str] = []
        """Those that dvc.yaml chooses for the table."""
        pipeline = project.pipeline()
        for lineage in lineages(pipeline, recorded(pipeline)):
            self._stores.of(experiment(lineage), columns(lineage))
            self.columns += columns(lineage)
        if not [*self._stores]:
            raise ProjectError("dvc.yaml has no metrics, curves or models, so trials have no rows")
        # All are at one address, so the client of any reaches the experiments of the others.
        self.store = next(iter(self._stores))
        # A stage does not wait for a server that is down, but the driver can, as MLflow would.
        os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = "7"

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
        for name_, digests in self._experiments.there[name].rows:
            run, store = known.get(frozenset(digests.items())), self._stores.of(name_)
            if run is None:
                with store.errors_reported():
                    has = Runs(store).find(digests).has
                    run = store.client.get_run(has.run_id) if has and not has.is_deleted else None
            found.append(run)
        return found

    def _record(self, name: str) -> None:
        """Make the rows of an experiment that MLflow lacks, with files from the DVC remote."""
        with tqdm.external_write_mode():  # only to print, as DVC's threads need its lock
            print(f"{name} is recorded from git and DVC, as MLflow lacks it", flush=True)
        commit = self._experiments.there[name].kept.commit
        with self._project.at(commit):
            found = read(self._project, commit=commit)
            # As if the trial itself had made it.
            origin = found.origin._replace(commit=self._commit, experiment=name)
            for result in replace(found, origin=origin).results():
                notes, name_ = fetch(result), experiment(result.lineage)
                store, runs = self._stores.of(name_), self._stores.runs(name_)
                with store.lock(), store.errors_reported(AT_MOST):
                    notes += bring(store, runs, result).notes
                with tqdm.external_write_mode():
                    for note in notes:
                        warn(f"{name}: {note}")

    def settle(self, sweep: str, names: Set[str], found: Found) -> None:
        """Leave one row for each result of these trials, tagged as the sweep's.

        One tag names all sweeps that a row belongs to, each has one of its own. Rows of lost
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
                if same and value(
                    tags, TOKEN
                ):  # a script's own run: only the script can make it again
                    self.store.client.set_tag(run_id, REPRODUCES, same[0].info.run_id)
                elif same:
                    self.store.client.delete_run(run_id)
        with self.store.errors_reported():
            for run, name in kept.values():  # also those of another sweep
                tags, kept_by = run.data.tags, self._experiments.there[name].kept
                new = {SWEEP: " ".join(dict.fromkeys([*tags.get(SWEEP, "").split(), sweep]))}
                new[f"{IN_SWEEP}{sweep}"] = sweep
                is_own = tags.get(COMMIT) == self._commit  # not an earlier commit's
                for stage in tagged(tags, COMPLETE) if is_own else ():
                    new |= {f"{TREE}{stage}": kept_by.tree, f"{KEPT}{stage}": kept_by.commit}
                if not new.items() <= tags.items():
                    log(self.store, run.info.run_id, tags=new)

    def has_metric(self, name: str) -> bool:
        """Whether any row has a metric, which a script may have logged."""
        experiments, query = [store.experiment_id for store in self._stores], f"metrics.`{name}` "
        with self.store.errors_reported():
            search = self.store.client.search_runs
            return any(search(experiments, query + how, max_results=1) for how in (">= 0", "< 0"))

    def urls(self, sweep: str, metric: str, varied: Iterable[str]) -> Iterator[str]:
        """Yield the addresses of a sweep's tables, one for each MLflow experiment.

        They show the metric, the columns in dvc.yaml and the params that the sweep varies. Each is
        a view of its own, because a filter in the address of the usual one would drop its columns.
        """
        first = f"metrics.{metric.removeprefix('-')}"
        others = [name for name in self.columns if name.removeprefix("-") != first]
        others += [f"params.{key}" for key in varied]
        sorted_by = ["-" * metric.startswith("-") + first] if metric else []
        columns = [*sorted_by, *dict.fromkeys([*others, f"tags.{CHANGE}"])]
        query = f"tags.`{IN_SWEEP}{sweep}` = '{sweep}'"
        ((key, value),) = table_view.tags(columns, sweep, query).items()
        for store in self._stores:
            with store.errors_reported():
                store.tag(key, value)
            yield store.url(table=sweep)

    def keep(self, run: Run, path: str, picture: "Figure") -> str:
        """Log a picture as a file of a row; return its address."""
        run_id, stores = run.info.run_id, self._stores
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
        experiments = [store.experiment_id for store in self._stores]
        of_commit = f"tags.`{COMMIT}` = '{self._commit}'"
        with self.store.errors_reported():
            return list(self.store.client.search_runs(experiments, of_commit, max_results=50_000))


def _results(run: Run) -> _Results:
    """Return the results that a row has."""
    return frozenset(tagged(run.data.tags, COMPLETE).items())
