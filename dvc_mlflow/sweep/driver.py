"""The driver of a sweep: it gives the trials of a grid or a search to Ray, and collects results.

Ray places trials, counts cores and cards, and runs those of dead nodes on others. What a node fails
for its own reason is not Ray's to repeat, as that node is free again first: it goes to another one.
"""

import logging
import math
import os
import re
import secrets
import signal
import socket
import sys
from argparse import Namespace
from collections import defaultdict
from collections.abc import Callable, Mapping
from contextlib import ExitStack, redirect_stdout, suppress
from io import StringIO
from typing import Any

from hydra.errors import HydraException

from ..errors import ProjectError, StoreError, ToolError
from ..git import text
from ..project import Project
from ..project.default_remote import Remote
from . import node, preflight
from .results import Results
from .trials import Grid, Trial, column, digest

_TRIES = 4  # more, of a trial that nodes or services have failed


def sweep(project: Project, given: Namespace) -> bool:
    """Run the trials that the remotes lack; return whether all have results and rows.

    Raises `ToolError` if no trial could run, or its results could not be kept.
    """
    commit, metric = text("rev-parse", "HEAD"), given.metric or ""
    what = [commit, project.folder, sorted(given.set_param), given.n and metric]
    title = f"{given.name or ('search' if given.n else 'grid')}-{digest(what)}"
    source, remote = _source(project, commit, given, title), Remote(project)
    order = preflight.order(project, remote, commit, title, given)
    results = Results(project, remote, order["refs"], title)
    driver = _Driver(order, source, results, remote.place, metric)
    return driver.run(given, f"{title}: trials of commit {commit[:7]}")


def _source(project: Project, commit: str, given: Namespace, title: str) -> Any:
    """Return the grid or the search; raises `ToolError`, which quotes the options."""
    try:
        if not given.n:
            return Grid(commit, project.folder, given.set_param)
        from .study import Search  # Optuna is slow

        return Search(project, commit, given, title)
    except (ProjectError, HydraException, ValueError) as error:
        shown = " ".join(f"'{override}'" for override in given.set_param)
        raise ToolError(f"{shown}: {error}") from None


class _Driver:
    """Runs the trials of a grid or a search, and says what becomes of them."""

    def __init__(
        self, order: Mapping[str, Any], source: Any, results: Results, place: str, metric: str
    ) -> None:
        self._order, self._source, self._results, self._place = order, source, results, place
        self._key, self._is_low = metric.lstrip("-"), metric.startswith("-")
        self._best_of: Callable[..., Any] = min if self._is_low else max
        self._failed: dict[str, str] = {}
        self._out = sys.stdout  # Ray's threads print to another

    def run(self, given: Namespace, title: str) -> bool:
        """Run what is missing, and return whether nothing is."""
        source, results = self._source, self._results
        self._collect([*source.trials])
        todo = [each for name, each in source.trials.items() if name not in results.complete]
        new = len(todo) + source.left
        self._say(f"{title}, {len(source.trials) - len(todo)} found, {new} new")
        if new:
            with ExitStack() as left:
                self._loop(_started(given, left), given, todo)
        try:
            self._collect([*source.trials])
        except StoreError as error:
            raise ToolError(f"{error}; then the same command makes the rows") from None
        return self._end()

    def _loop(self, ray: Any, given: Namespace, todo: list[Trial]) -> None:
        """Run trials until none is left; no request in it may grow with their number."""
        needs = {kind: n for kind, n in (("CPU", given.cpus), ("GPU", given.gpus)) if n}
        own = {"num_cpus": given.cpus, "num_gpus": given.gpus, "max_retries": _TRIES}
        task = ray.remote(scheduling_strategy="SPREAD", **own)(node.run)
        running, faults = dict[Any, Trial](), defaultdict[str, list[str]](list)

        def begin(trial: Trial) -> None:
            order = {**self._order, "name": trial.name, "overrides": trial.overrides}
            order["incomplete"] = self._results.incomplete.get(trial.name, "")
            nodes = {
                one["NodeID"] for one in ray.nodes() if one["Alive"] and "CPU" in one["Resources"]
            }
            bad = nodes & {*faults[trial.name]}
            how = (
                {"ray.io/node-id": f"!in({','.join(sorted(bad))})"}
                if bad and bad != nodes
                else None
            )
            running[task.options(label_selector=how).remote(order)] = trial

        while True:
            there = ray.cluster_resources()
            room = max(1, min(int(there.get(kind, 0) // n) for kind, n in needs.items()))
            while len(running) < room and (trial := todo.pop(0) if todo else self._source.ask()):
                begin(trial)
            if not running:
                return
            ray.wait([*running], timeout=1)
            done = []
            for ref in ray.wait([*running], num_returns=len(running), timeout=0)[0]:
                trial = running.pop(ref)
                outcome = _outcome(ray, ref)
                where = f"on {outcome['host']} in {outcome['seconds']:.1f} s"
                if not outcome["why"]:
                    done.append(trial.name)
                    self._say(f"{trial} done {where}")
                elif outcome["again"] and len(faults[trial.name]) < _TRIES:
                    faults[trial.name].append(outcome["node"])
                    self._say(f"{trial} failed {where}, and is tried again: {outcome['why']}")
                    begin(trial)
                else:
                    self._failed[trial.name] = outcome["why"]
                    self._source.tell(trial.name, None)
                    self._say(f"{trial} failed {where}: {outcome['why']}")
            if done:
                with suppress(ProjectError, StoreError):  # repeated in the end
                    self._collect(done)

    def _collect(self, names: list[str]) -> None:
        """Look at what the remotes have of trials, and tell their values; raises `ToolError`."""
        self._results.collect(names)
        there = [name for name in names if name in self._results.metrics]
        for name in there:
            self._source.tell(name, self._value(name))
        known = {key for name in there for _, row in self._results.metrics[name] for key in row}
        if self._key and known and self._key not in known:
            rule = f"must be one of {', '.join(sorted(known))}"
            raise ToolError(f"--metric: {rule}; received '{self._key}'")

    def _value(self, name: str) -> float | None:
        """Return the best value of the metric among the rows of a trial."""
        rows = self._results.metrics.get(name, ())
        values = [row[self._key] for _, row in rows if math.isfinite(row.get(self._key, math.nan))]
        return self._best_of(values, default=None)  # type: ignore[no-any-return]

    def _end(self) -> bool:
        """Say what the sweep has brought, and where it is; return whether nothing is missing."""
        results, trials = self._results, self._source.trials
        missing = {n: "the git remote lacks it" for n in trials if n not in results.complete}
        missing |= dict.fromkeys(results.incomplete, f"{self._place} lacks outputs of it")
        missing |= {
            n: "MLflow has no row of it" for n in results.complete if n not in results.metrics
        }
        missing |= self._failed
        for name, why in missing.items():
            self._say(f"failed: {trials[name]}: {why}")
        self._say(f"{len(trials) - len(missing)} done, {len(missing)} failed")
        shown = [f"{'-' if self._is_low else ''}metrics.{self._key}"] if self._key else []
        for line in results.tables([*shown, *(f"params.{column(k)}" for k in self._source.varied)]):
            self._say(line)
        values = {name: value for name in trials if (value := self._value(name)) is not None}
        if values:
            best = self._best_of(values, key=lambda name: values[name])
            rows = results.metrics[best]
            run_id = next(run_id for run_id, row in rows if row.get(self._key) == values[best])
            self._say(f"The best: {values[best]:.4g} {trials[best]}: dvc-mlflow restore {run_id}")
        self._say("All of them: dvc exp show")
        return not missing

    def _say(self, line: str) -> None:
        print(line, file=self._out, flush=True)


def _outcome(ray: Any, ref: Any) -> dict[str, Any]:
    """Return what has become of a trial."""
    try:
        found: dict[str, Any] = ray.get(ref)
    except ray.exceptions.RayError as error:
        said = re.split(r"\n|\. ", f"{getattr(error, 'cause', error)}".strip())[0]
        return {"host": "?", "seconds": math.nan, "why": said, "again": False}
    return found


def _started(given: Namespace, left: ExitStack) -> Any:
    """Return Ray, connected to a cluster, or to one started on this machine, until it is `left`.

    Raises `ToolError` if there is none, or no node that could run a trial.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Ray's future default; today's comes with a warning.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    if not given.address:  # nobody else reaches the cluster, nor reads its token in a file
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")  # as there: loopback
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    import ray

    # Ray prints 20 lines on the state of each node that is lost, and has no setting for it.
    left.enter_context(redirect_stdout(StringIO()))
    where = given.address or "local"
    host, _, port = where.rpartition("://")[2].rpartition(":")
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    term = signal.getsignal(signal.SIGTERM)
    try:
        if port.isdecimal():  # Ray would wait for minutes if nothing listens there
            socket.create_connection((host, int(port)), timeout=10).close()
        ray.init(where, include_dashboard=None if given.address else False, **quiet)
    except Exception as error:  # that is what Ray raises if a node does not start in time
        raise ToolError(f"Ray at {where}: {' '.join(f'{error}'.split())}") from None
    left.callback(ray.shutdown)
    signal.signal(signal.SIGTERM, term)  # Ray's own would abort
    for option, kind, wanted in (("cpus", "CPU", given.cpus), ("gpus", "GPU", given.gpus)):
        most = max(one["Resources"].get(kind, 0) for one in ray.nodes() if one["Alive"])
        if wanted > most:  # Ray would wait for such a node
            rule = f"the largest node has {most:g}; received {wanted:g}"
            raise ToolError(f"--{option}: {rule}")
    ray.cloudpickle.register_pickle_by_value(node)
    return ray
