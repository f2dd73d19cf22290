"""`dvc-mlflow sweep`: run a sweep of DVC experiments on Ray, and record it in MLflow."""

import argparse
import os
import re
from collections.abc import Iterable
from contextlib import closing, suppress
from functools import partial
from typing import Any

from ..errors import ProjectError, StoreError, ToolError, warn
from ..faults import masked
from ..origin import SWEEP_VARIABLE
from ..project import Project
from ..repository import check_git
from ..sweep.report import Report
from ..sweep.results import donors
from ..sweep.schedule import Cluster
from ..sweep.search import Search, Trial, Trials, digest
from ..sweep.start import Experiments, order, text
from ..sweep.table import Found, Table


def run(given: argparse.Namespace) -> int:
    """Run what the git remote does not have yet; return 1 if a trial failed or lacks a row."""
    if not 1 <= given.timeout <= 2e6:  # Python cannot wait longer than 24 days
        raise ToolError(f"--timeout: must be from 1 to 2000000 s; received {given.timeout:g}")
    check_git()
    try:
        with Project() as project:
            os.chdir(project.root)
            return int(not _sweep(project, given))
    except ToolError as error:
        raise ToolError(masked(f"{error}")) from None
    except ModuleNotFoundError as error:
        if error.name not in {"ray", "optuna"}:
            raise
        raise ToolError(f"{error.name} is missing: pip install 'dvc-mlflow[sweep]'") from None
    except KeyboardInterrupt:
        warn("stopped; the same command continues where this one ended")
        return 130


def _sweep(project: Project, given: argparse.Namespace) -> bool:
    commit = text("rev-parse", "HEAD")
    fixed = order(project, commit, given)
    table, experiments = Table(project, commit), Experiments(project, commit)
    given.metric = given.metric or _default_metric(table.columns)
    what = [commit, sorted(given.set_param), given.optuna, given.optuna and given.metric]
    kind = "optuna" if given.optuna else "grid"
    title = re.sub(r"[^\w.-]+", "-", given.name or f"{kind}-{digest(what)}")  # part of an address
    fixed["environment"][SWEEP_VARIABLE] = os.environ[SWEEP_VARIABLE] = title
    search = Search(given, title, Trials(project, commit), table.store)
    report, there = Report(given.metric, search.trials), experiments.read()
    new = [trial for name, trial in search.trials.items() if name not in there]
    counts = f"{len(search.trials) - len(new)} found, {len(new) + search.left} new"
    print(f"{title}: trials of commit {commit[:7]}, {counts}", flush=True)

    def measure(names: Iterable[str], *, at_once: bool = True) -> Found:
        """Find, or make, the rows of those of these trials that git has."""
        own = {name: there[name] for name in names if name in experiments.commits}
        found = table.find(own, experiments.commits, at_once=at_once)
        report.metrics |= {name: [run.data.metrics for run in found[name]] for name in found}
        return found

    def ordered(trial: Trial) -> dict[str, Any]:
        one = {"name": trial.name, "overrides": trial.overrides}
        return {**fixed, **one, "donors": donors(trial.params, there)}

    measure(search.trials)
    try:
        if new or search.left:
            ask = partial(search.ask, report.values)
            with closing(Cluster(given, new, ask)) as cluster:
                while cluster.begin(ordered) or search.left:
                    ended = cluster.ended()
                    if done := [one.name for one, how in ended if how["status"] == "done"]:
                        report.metrics |= dict.fromkeys(done, ())
                        with suppress(ProjectError, StoreError):  # away: done again in the end
                            there |= experiments.read()
                            measure(done, at_once=False)
                    for trial, outcome in ended:
                        report.event(trial, outcome)
                    report.state(len(cluster.waiting) + search.left, cluster.running.values())
    finally:
        there = experiments.read()
        report.metrics.clear()
        found = measure(search.trials)
        kept = experiments.commits, experiments.trees
        table.settle(title, search.trials.keys(), found, *kept)
    complete = report.end()
    for address in table.urls(title, given.metric, search.trials.values()):
        print(f"\nIn MLflow: {address}")
    for run in [run for name in [*report.values()][:1] for run in found[name]]:
        model = table.model(run)
        print(f"The best: dvc-mlflow restore {run.info.run_id}", end="")
        print(f", its model is {model}" if model else "")
    print("All of them, with their files: dvc exp pull origin", flush=True)
    return complete


def _default_metric(columns: list[str]) -> str:
    """Return the first metric that dvc.yaml wants in the table."""
    for name in columns:
        sign = "-" if name.startswith("-") else ""
        if name.removeprefix("-").startswith("metrics."):
            return sign + name.removeprefix("-").removeprefix("metrics.")
    rule = "name what best means, such as --metric=-evaluate/loss"
    raise ToolError(f"--metric: {rule}; dvc.yaml has no metric among meta.mlflow.columns")
