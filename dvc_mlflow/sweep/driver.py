"""The driver of a sweep: it gives the trials of a grid or a search to Ray, and collects results.

Ray places trials, counts cores and cards, and repeats what has failed because a node has died, or
for another reason of the node's.
"""

import logging
import math
import os
import secrets
import signal
import socket
import sys
from argparse import Namespace
from collections.abc import Collection, Mapping
from contextlib import redirect_stdout, suppress
from io import StringIO
from pathlib import Path
from typing import Any

from ..errors import ProjectError, StoreError, ToolError, masked, one_line, plain
from ..git import git, text
from ..pipeline.tags import SWEEP_VARIABLE
from ..place import address, artifacts_folder, main_repository
from ..project.default_remote import Remote
from ..project.experiments import uses_run_cache
from ..project.project import Project
from . import node
from .results import Results
from .trials import Grid, Trial, digest

_SHARED = ("http://", "https://", "postgresql", "mysql", "mssql")
_PASSED_ON = ("MLFLOW_TRACKING_", "MLFLOW_S3_", "MLFLOW_HTTP_", "MLFLOW_EXPERIMENT_NAME", "AWS_")
_TRIES = 4  # more, of a trial that nodes or services have failed


def sweep(project: Project, arguments: Namespace) -> bool:
    """Run the trials that the remotes lack; return whether all have results and rows.

    Raises `ToolError` if no trial could run, or its results could not be kept.
    """
    commit = text("rev-parse", "HEAD")
    what = [commit, project.folder, sorted(arguments.set_param), arguments.n and arguments.metric]
    title = f"{arguments.name or ('search' if arguments.n else 'grid')}-{digest(what)}"
    if arguments.n:
        from .study import Search  # Optuna is slow
    with one_line(" ".join(f"'{override}'" for override in arguments.set_param)):
        source: Any = (
            Search(project, commit, arguments, title)
            if arguments.n
            else Grid(commit, project.folder, arguments.set_param)
        )
    remote = Remote(project)
    order = _order(project, remote, commit, title, arguments)
    results = Results(project, remote, order["refs"], title)
    return _Driver(arguments, order, source, results).run(title)


def _order(
    project: Project, remote: Remote, commit: str, title: str, arguments: Namespace
) -> dict[str, Any]:
    """Return what all trials need; raises `ToolError` if a node could not clone what is here."""
    if changed := text("status", "--porcelain").splitlines():
        raise ProjectError(f"{changed[0][3:]}: not committed, so no node would have it")
    url = text("remote", "get-url", "origin")
    git("fetch", "-q", "origin", seconds=60)
    if not text("branch", "-r", "--contains", commit, "--list", "origin/*"):
        raise ProjectError(f"{commit[:7]} is not in the git remote 'origin': `git push` it first")
    environment = _environment(main_repository(), shared=bool(arguments.address))
    remote.sign(sign := f"dvc-mlflow-{digest(url)}")
    return {
        "commit": commit,
        "folder": project.folder,
        "refs": f"refs/exps/{commit[:2]}/{commit[2:]}/",  # where DVC keeps them
        "url": f"{Path(url).resolve()}" if Path(url).exists() else url,
        "dvc": remote.config(),
        "place": remote.place,
        "sign": sign,
        "run_cache": uses_run_cache(arguments.set_param),
        "environment": {**environment, SWEEP_VARIABLE: title},
        "timeout": arguments.timeout,
        "clones": f"{arguments.clones}/dvc-sweep-{digest(url)}",
    }


def _environment(root: Path, *, shared: bool) -> dict[str, str]:
    """Return the variables that a trial needs: for the tracking server, the user and git."""
    uri = os.environ.get("MLFLOW_TRACKING_URI", "")
    if shared and not uri.startswith(_SHARED):
        must = "must name a server or database that every node reaches"
        raise ToolError(f"MLFLOW_TRACKING_URI: {must}; received '{uri}'")
    passed = {k: v for k, v in os.environ.items() if k.startswith(_PASSED_ON)}
    passed["MLFLOW_TRACKING_URI"] = address(root)  # the driver's own store, not one in each clone
    if not uri.startswith("http"):
        # Where an experiment that a script creates has its files; MLflow would choose the clone.
        passed["_MLFLOW_SERVER_ARTIFACT_ROOT"] = artifacts_folder(root).as_uri()
    name, email = text("var", "GIT_COMMITTER_IDENT").rpartition(">")[0].split(" <")
    for role in ("AUTHOR", "COMMITTER"):
        passed |= {f"GIT_{role}_NAME": name, f"GIT_{role}_EMAIL": email}
    return passed


class _Driver:
    """Runs the trials of a grid or a search, and says what becomes of them."""

    def __init__(
        self, arguments: Namespace, order: dict[str, Any], source: Any, results: Results
    ) -> None:
        self._order, self._source, self._results = order, source, results
        self._address = arguments.address
        self._needs = {"CPU": arguments.cpus, "GPU": arguments.gpus}
        self._key = (arguments.metric or "").removeprefix("-")
        self._sign = "-" if self._key != (arguments.metric or "") else "+"
        self._failed: dict[str, str] = {}
        self._out = sys.stdout  # Ray's threads print to another

    def run(self, title: str) -> bool:
        """Run what is missing, and return whether nothing is."""
        trials, results = self._source.trials, self._results
        self._collect(trials)
        found = results.commits.keys() - results.incomplete
        todo = [each for name, each in trials.items() if name not in found]
        n, new = len(trials) - len(todo), len(todo) + self._source.left
        self._say(f"{title}: trials of commit {self._order['commit'][:7]}, {n} found, {new} new")
        if new:
            # Ray prints 20 lines on the state of each node that is lost, and has no setting for it.
            with redirect_stdout(StringIO()):
                ray = _started(self._address)
                try:
                    self._loop(ray, todo)
                finally:
                    ray.shutdown()
        self._collect(trials)
        return self._end()

    def _loop(self, ray: Any, todo: list[Trial]) -> None:
        """Run trials until none is left; no request in it may grow with their number."""
        own = {"num_cpus": self._needs["CPU"], "num_gpus": self._needs["GPU"]}
        how = {"max_retries": _TRIES, "retry_exceptions": [OSError]}
        task = ray.remote(**own, **how, scheduling_strategy="SPREAD")(node.run_trial)
        running = dict[Any, Trial]()
        while True:
            room = _room(ray, self._needs)
            if not (room or running):  # Ray would wait for a node
                wanted = ", ".join(f"{n:g} {kind}" for kind, n in self._needs.items())
                raise ToolError(f"--cpus, --gpus: no node of the cluster has {wanted}")
            while len(running) < room and (trial := todo.pop(0) if todo else self._source.ask()):
                order = {**self._order, "name": trial.name, "overrides": trial.overrides}
                order["there"] = self._results.commits.get(trial.name, "")
                running[task.remote(order)] = trial
            if not running:
                return
            done = []
            for ref in ray.wait([*running], num_returns=len(running), timeout=0.1)[0]:
                trial = running.pop(ref)
                try:
                    why, on = ray.get(ref)
                except ray.exceptions.RayError as error:
                    # Its nodes have failed, or died, each time.
                    cause = f"{getattr(error, 'cause', error)}".strip().partition("\n")[0]
                    why, on = cause, "each time"
                if not why:
                    done.append(trial.name)
                    self._say(f"{trial} done {on}")
                else:
                    self._failed[trial.name] = f"{on}: {masked(why)}"
                    self._say(f"{trial} failed {self._failed[trial.name]}")
                    self._source.tell(trial.name, None)
            with suppress(ProjectError, StoreError):  # repeated in the end
                self._collect(done)

    def _collect(self, names: Collection[str]) -> None:
        """Look at what the remotes have of trials, and tell their values; raises `ToolError`."""
        self._results.collect(names)
        measured = [name for name in names if name in self._results.rows]
        for name in measured:
            self._source.tell(name, self._best([name])[0])
        rows = [run for name in measured for run in self._results.rows[name]]
        keys = {key for run in rows for key in run.data.metrics}
        if self._key and keys and self._key not in keys:
            rule = f"must be one of {', '.join(sorted(keys))}"
            raise ToolError(f"--metric: {rule}; received '{self._key}'")

    def _best(self, names: Collection[str]) -> tuple[float | None, str, str]:
        """Return the best value of the metric in these trials, its run's id, and its trial."""
        rows = [(run, name) for name in names for run in self._results.rows.get(name, ())]
        found = [(r.data.metrics.get(self._key, math.nan), r.info.run_id, n) for r, n in rows]
        finite = [each for each in found if math.isfinite(each[0])]
        return (min if self._sign == "-" else max)(finite, default=(None, "", ""))

    def _end(self) -> bool:
        """Say what the sweep has brought, and where it is; return whether nothing is missing."""
        results, trials = self._results, self._source.trials
        missing = dict.fromkeys(trials.keys() - results.rows, "MLflow has no row of it")
        missing |= dict.fromkeys(results.incomplete, f"{self._order['place']} lacks outputs of it")
        missing |= dict.fromkeys(trials.keys() - results.commits, "the git remote lacks it")
        missing |= self._failed
        for name in (name for name in trials if name in missing):
            self._say(f"failed: {trials[name]}: {missing[name]}")
        self._say(f"{len(trials) - len(missing)} done, {len(missing)} failed")
        for line in results.tables([f"{self._sign}{self._key}"] if self._key else []):
            self._say(line)
        value, run_id, name = self._best(trials)
        if value is not None:
            self._say(f"The best: {value:.4g} {trials[name]}: dvc-mlflow restore {run_id}")
        self._say("All of them: dvc exp show")
        return not missing

    def _say(self, line: str) -> None:
        print(plain(line), file=self._out, flush=True)


def _room(ray: Any, needs: Mapping[str, float]) -> int:
    """Return how many trials can run at once on the nodes that are there."""
    alive = [one["Resources"] for one in ray.nodes() if one["Alive"]]
    return sum(int(min(has.get(k, 0) // n for k, n in needs.items() if n)) for has in alive)


def _started(where: str | None) -> Any:
    """Return Ray, connected to a cluster, or to one started on this machine; raises `ToolError`."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if not where:  # nobody else reaches the cluster, nor reads its token in a file
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")  # as there: loopback
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
        where, quiet = "local", {**quiet, "include_dashboard": False}
    import ray

    host, _, port = where.rpartition("://")[2].rpartition(":")
    term = signal.getsignal(signal.SIGTERM)
    try:
        if port.isdecimal():  # Ray would wait for minutes if nothing listens there
            socket.create_connection((host, int(port)), timeout=10).close()
        ray.init(where, **quiet)
    except Exception as error:  # that is what Ray raises if a node does not start in time
        raise ToolError(f"Ray at {where}: {' '.join(f'{error}'.split())}") from None
    signal.signal(signal.SIGTERM, term)  # Ray's own would abort
    ray.cloudpickle.register_pickle_by_value(node)
    return ray
