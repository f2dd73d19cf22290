"""The driver of a sweep: it gives the trials of a grid or a search to a cluster, and collects."""

import math
import os
import signal
import sys
import threading
import time
from argparse import Namespace
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from datetime import timedelta
from typing import Any

from hydra.errors import HydraException
from tqdm import tqdm

from ..errors import ProjectError, StoreError, ToolError, warn
from ..git import text
from ..place import main_repository
from ..project.default_remote import Remote
from ..project.experiments import FULL, UNFIT
from ..project.project import Project
from . import preflight
from .cluster import Cluster, Running
from .node import PUSHING
from .points import Grid, Points, Trial, column, digest
from .results import Results

STOPPED = "stopped; the same command continues where this one ended"
_SECONDS = 4.0  # from Ctrl-C to the end, whatever hangs


def sweep(project: Project, given: Namespace) -> bool:
    """Run the trials that the git remote lacks; return whether all have results and rows.

    Raises `ToolError` if no trial could run, or its results could not be kept.
    """
    commit, metric = text("rev-parse", "HEAD"), given.metric or ""
    if metric:
        preflight.metric(project, metric)
    what = [commit, project.folder, sorted(given.set_param), given.n and metric]
    title = f"{given.name or ('search' if given.n else 'grid')}-{digest(what)}"
    source = _source(given, title, Points(project, commit))
    order = preflight.order(project, commit, title, given)
    remote = Remote(project)
    with preflight.answering(remote):
        preflight.inputs_are_there(project, remote)
        remote.sign(order["sign"])
    try:
        results = Results(project, main_repository(), commit, title)
        driver = _Driver({**order, "refs": results.refs}, source, results, remote, metric)
        return driver.run(given, f"{title}: trials of commit {commit[:7]}")
    finally:
        with suppress(ToolError), preflight.answering(remote, 2):
            remote.unsign(order["sign"])


def _source(given: Namespace, title: str, points: Points) -> Any:
    """Return the grid or the search; raises `ToolError`, which quotes the options."""
    try:
        if not given.n:
            return Grid(given.set_param, points)
        from .study import Search  # Optuna is slow

        return Search(given, title, points)
    except (ProjectError, HydraException, ValueError) as error:
        shown = " ".join(f"'{override}'" for override in given.set_param)
        raise ToolError(f"{shown}: {error}") from None


class _Driver:
    """Runs the trials of a grid or a search, and says what becomes of them."""

    def __init__(
        self, order: Mapping[str, Any], source: Any, results: Results, remote: Remote, metric: str
    ) -> None:
        self._order, self._source, self._results = order, source, results
        self._remote, self._key, self._is_low = remote, metric.lstrip("-"), metric.startswith("-")
        self._failed: dict[str, str] = {}
        self._out = sys.stdout  # Ray's threads print to another
        self._bar = tqdm(unit=" trials", disable=None, leave=False)

    def run(self, given: Namespace, title: str) -> bool:
        """Run what is missing, and return whether nothing is."""
        source, results = self._source, self._results
        self._collect([*source.trials])
        todo = [t for name, t in source.trials.items() if name not in results.commits]
        n, new = len(source.trials) - len(todo), len(todo) + source.left
        self._say(f"{title}, {n} found, {new} new")
        self._bar.total = n + new
        with self._bar:
            if new:
                with closing(Cluster(given)) as cluster:
                    self._loop(cluster, todo)
        # A server that restarts just now is worth minutes; while trials run, it is not.
        os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = "7"
        try:
            self._collect([*source.trials])
        except StoreError as error:
            raise ToolError(f"{error}; then the same command makes the rows") from None
        return self._end()

    def _loop(self, cluster: Cluster, todo: list[Trial]) -> None:
        """Run trials until none is left; no request in it may grow with their number."""
        while True:
            while cluster.room > 0 and (trial := todo.pop(0) if todo else self._source.ask()):
                own = {"name": trial.name, "overrides": trial.overrides}
                own["incomplete"] = self._results.incomplete.get(trial.name, "")
                cluster.begin({**self._order, **own})
            if cluster.is_idle:
                return
            done = [
                running.name for running, how in cluster.events() if self._is_done(running, how)
            ]
            if done:
                with suppress(ProjectError, StoreError):  # repeated in the end
                    self._collect(done)
            if running := [each for each in cluster.running.values() if each.node]:
                first = min(running, key=lambda each: each.since)
                age = timedelta(seconds=round(time.monotonic() - first.since))
                self._bar.set_postfix_str(f"longest {first.name} on {first.host} {age}")
            self._bar.n = len(self._results.commits) + len(self._failed)

    def _collect(self, names: list[str]) -> None:
        """Look at what the remotes have of trials, and tell their values; raises `ToolError`."""
        with preflight.answering(self._remote, PUSHING):
            self._results.collect(names, self._remote)
        there = {
            name: self._results.metrics[name] for name in names if name in self._results.metrics
        }
        for name in there:
            self._source.tell(name, self._value(name))
        known = {key for rows in there.values() for _, row in rows for key in row}
        if self._key and known and self._key not in known:
            rule = f"must be one of {', '.join(sorted(known))}"
            raise ToolError(f"--metric: {rule}; received '{self._key}'")

    def _value(self, name: str) -> float | None:
        """Return the best value of the metric among the rows of a trial."""
        rows = self._results.metrics.get(name, ())
        values = [row[self._key] for _, row in rows if math.isfinite(row.get(self._key, math.nan))]
        return (min if self._is_low else max)(values, default=None)

    def _is_done(self, running: Running, event: Mapping[str, Any]) -> bool:
        """Say what has happened to a trial, and return whether it is done.

        Raises `ToolError` if the DVC remote is full: no other trial could keep its results.
        """
        trial, on = self._source.trials[running.name], running.host
        if "note" in event:
            self._say(f"{trial} on {on}: {event['note']}")
            return False
        status, why, took = (
            event["status"],
            event["message"],
            f"on {on} in {event['seconds']:.1f} s",
        )
        log = f" (its log: {on}:{event['log']})" if event["log"] else ""
        if status == FULL:
            raise ToolError(f"{why}; make room, and the same command continues")
        if status == "done":
            self._say(f"{trial} done {took}")
        elif event.get("is_new"):
            self._say(f"{on} gets no more trials: {why}")
        elif "retry" in event:
            self._say(f"{trial} will be retried in {event['retry']} s; {on}: {why}{log}")
        elif status != UNFIT:
            self._failed[trial.name] = why
            self._source.tell(trial.name, None)
            self._say(f"{trial} failed {took}: {why}{log}")
        return bool(status == "done")

    def _end(self) -> bool:
        """Say what the sweep has brought, and where it is; return whether nothing is missing."""
        results, trials = self._results, self._source.trials
        lacking = {n: "the git remote lacks it" for n in trials if n not in results.commits}
        lacking |= dict.fromkeys(results.incomplete, f"{self._remote.place} lacks outputs of it")
        lacking |= {
            n: "MLflow has no row of it" for n in results.commits if n not in results.metrics
        }
        for note, commits in results.notes.items():
            warn(f"{commits[0][:7]}: {note}")
        for name, why in {**lacking, **self._failed}.items():
            self._say(f"failed: {trials[name]}: {why}")
        self._say(
            f"{len(trials) - len({*lacking, *self._failed})} done, {len(self._failed)} failed"
        )
        sign = "-" if self._is_low else ""
        metric = [f"{sign}metrics.{self._key}"] if self._key else []
        for line in results.tables(
            [*metric, *(f"params.{column(k)}" for k in self._source.varied)]
        ):
            self._say(line)
        values = {name: value for name in trials if (value := self._value(name)) is not None}
        if values:
            best = (min if self._is_low else max)(values, key=lambda name: values[name])
            run_id = next(
                i for i, row in results.metrics[best] if row.get(self._key) == values[best]
            )
            self._say(f"The best: {values[best]:.4g} {trials[best]}: dvc-mlflow restore {run_id}")
        self._say("All of them: dvc exp show")
        return not (lacking or self._failed)

    def _say(self, line: str) -> None:
        with tqdm.external_write_mode():
            print(line, file=self._out, flush=True)


@contextmanager
def ended_by_signals() -> Iterator[None]:
    """Let SIGINT and SIGTERM interrupt the block, and end the process soon, whatever it waits for.

    A signal reaches Python only between two of its steps, but a pipe of its own at once.
    """

    def watch() -> None:
        while got := os.read(reading, 1):
            if got[0] in {signal.SIGINT, signal.SIGTERM}:
                time.sleep(_SECONDS)
                warn(STOPPED)
                os._exit(130)

    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGTERM, before)
        os.close(writing)
