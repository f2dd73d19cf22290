"""`dvc-mlflow sweep`: run a sweep of DVC experiments on Ray, and record it in MLflow."""

import argparse
import math
import os
import re
from collections.abc import Sequence
from contextlib import closing, suppress
from functools import partial
from typing import Any

from ..errors import ProjectError, StoreError, ToolError, masked, warn
from ..git import check_git, text
from ..pipeline.tags import SWEEP_VARIABLE
from ..project import Project
from ..sweep.metric import chosen
from ..sweep.report import Report
from ..sweep.results import Experiments
from ..sweep.schedule import Cluster
from ..sweep.search import Search, Trial, Trials, digest, varied
from ..sweep.start import order
from ..sweep.table import Table


def run(given: argparse.Namespace) -> int:
    """Run the trials that the git remote lacks; return 1 if a trial failed or has no row."""
    if not 1 <= given.timeout <= 2e6:  # Python cannot wait longer than 24 days
        raise ToolError(f"--timeout: must be from 1 to 2000000 s; received {given.timeout:g}")
    for option, least, number in (("--cpus", 0.01, given.cpus), ("--gpus", 0, given.gpus)):
        if not least <= number < math.inf:
            raise ToolError(f"{option}: must be at least {least:g}; received {number:g}")
    if given.trials < 1:
        raise ToolError(f"--trials: must be at least 1; received {given.trials}")
    if not 0 <= given.seed < 2**16:
        raise ToolError(f"--seed: must be from 0 to 65535; received {given.seed}")
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
    fixed, experiments = order(project, commit, given), Experiments(project, commit)
    table = Table(project, commit, experiments)
    given.metric = chosen(given.metric, project, table, is_needed=bool(given.optuna))
    what = [commit, sorted(given.set_param), given.optuna, given.optuna and given.metric]
    if given.optuna and given.seed:
        what.append(given.seed)
    kind = "optuna" if given.optuna else "grid"
    title = re.sub(r"[^\w.-]+", "-", given.name or f"{kind}-{digest(what)}")  # part of an address
    fixed["environment"][SWEEP_VARIABLE] = os.environ[SWEEP_VARIABLE] = title
    search = Search(given, title, Trials(project, commit), table.store)
    experiments.read()
    new = [trial for name, trial in search.trials.items() if name not in experiments.there]
    counts = f"{len(search.trials) - len(new)} found, {len(new) + search.left} new"
    print(f"{title}: trials of commit {commit[:7]}, {counts}", flush=True)
    report = Report(given.metric, search.trials, len(search.trials) + search.left)
    report.rows = table.find(search.trials)

    def ordered(trial: Trial) -> dict[str, Any]:
        own = {"name": trial.name, "overrides": trial.overrides, "refs": experiments.refs}
        return {**fixed, **own, "donors": experiments.donors(trial.params)}

    try:
        if new or search.left:
            with closing(Cluster(given, new, partial(search.ask, report.values))) as cluster:
                # No request in this loop may grow with the number of trials.
                while cluster.begin(ordered) or search.left:
                    ended = cluster.ended()
                    if done := [one.name for one, how in ended if how["status"] == "done"]:
                        report.rows |= dict.fromkeys(done, ())
                        with suppress(ProjectError, StoreError):  # repeated in the end
                            experiments.read(*done)
                            report.rows |= table.find(done, at_once=False)
                    for trial, outcome in ended:
                        report.keep(trial, outcome)
                        report.show(trial, outcome)
                    report.state(len(cluster.waiting) + search.left, cluster.running.values())
    finally:
        report.close()
        experiments.read()
        report.rows = table.find(search.trials)
        table.settle(title, search.trials.keys(), report.rows)
    complete = report.end(search.missing(experiments.there))
    _show(given.metric, title, [*search.trials.values()], table, report)
    return complete


def _show(metric: str, title: str, trials: Sequence[Trial], table: Table, report: Report) -> None:
    """Print where the results are, and log their picture."""
    for address in table.urls(title, metric, varied(trials)):
        print(f"\nIn MLflow{'' if table.store.is_served else ', with `dvc-mlflow ui`'}: {address}")
    if scores := report.scores():
        from ..sweep.picture import draw  # slow

        best, model = scores[0].row, table.model(scores[0].row)
        print(f"The best: dvc-mlflow restore {best.info.run_id}", end="")
        print(f", its model is {model}" if model else "")
        address = table.keep(best, f"sweeps/{title}.png", draw(metric, scores))
        print(f"A picture of all of them: {address}")
    print("All of them, with their files: dvc exp pull origin", flush=True)
