"""Run a sweep of DVC experiments on a Ray cluster, or on the cores of this machine.

    python cluster/sweep.py -S 'train.learning_rate=0.001,0.003' -S 'model.units=range(5,30,5)'

cluster/README.md says what it does and what it needs on a cluster.
"""

import argparse
import os
import re
import sys
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "stages"))

from bridge.run.errors import StageError
from sweeps.node import masked
from sweeps.report import Report
from sweeps.repository import donors, experiments, git, order
from sweeps.rows import Rows
from sweeps.schedule import Cluster
from sweeps.search import Search, Trial, digest


def main() -> None:
    """Parse, run, report."""
    parser = argparse.ArgumentParser(description="Run a sweep of DVC experiments on Ray.")
    add = parser.add_argument
    add("-S", "--set-param", action="append", default=[], help="as in `dvc exp run --queue`")
    add("--optuna", action="append", default=[], help="KEY=log(A,B), interval(A,B) or A,B,…")
    add("--trials", type=int, default=40, help="number of --optuna trials (default: 40)")
    add("--name", help="the sweep's name in MLflow (default: a hash of its settings)")
    add("--address", help="of a running Ray cluster, or auto (default: start one here)")
    add("--cpus", type=float, default=1, help="cores per trial (default: 1)")
    add("--timeout", type=float, default=86400, help="seconds per trial (default: 86400, a day)")
    add("--metric", default="accuracy", help="what best means; --metric=-loss is the lowest loss")
    add("--clones", default="/tmp", help="folder on each node for its clones, such as '$SCRATCH'")  # noqa: S108
    options = parser.parse_args()
    os.chdir(ROOT)
    try:
        sys.exit(sweep(options))
    except StageError as error:
        sys.exit(masked(f"{error}"))
    except ModuleNotFoundError as error:
        sys.exit(f"{error}: `make cluster-setup`")
    except KeyboardInterrupt:
        sys.exit("stopped; the same command continues where this one ended")


def sweep(options: argparse.Namespace) -> bool:
    """Run what the git remote does not have yet; return whether a trial failed or lacks a row."""
    if not 1 <= options.timeout <= 2e6:  # Python cannot wait longer than 24 days
        raise StageError(f"--timeout: must be from 1 to 2000000 s; received {options.timeout:g}")
    commit = git("rev-parse", "HEAD")
    what = [commit, sorted(options.set_param), options.optuna, options.optuna and options.metric]
    name = options.name or f"{'optuna' if options.optuna else 'grid'}-{digest(what)}"
    title = re.sub(r"[^\w.-]+", "-", name)  # part of an address
    fixed = order(commit, title, options)
    rows, there = Rows(commit), experiments(commit)
    with rows.store.errors_reported():
        recorded = rows.of(there)
    # Those without a row are of another store: they run again, and nothing is taken from them.
    unrecorded = {name: there.pop(name) for name in there.keys() - recorded.keys()}
    search = Search(options, title, commit, rows.store)
    trials, report = search.trials, Report(options.metric, search.trials, there)
    new = [trial for name, trial in trials.items() if name not in there]
    found = f"{len(trials) - len(new)} found, {len(new) + search.left} new"
    print(f"{title}: trials of commit {commit[:7]}, {found}", flush=True)

    def ordered(trial: Trial) -> dict[str, Any]:
        own = {"name": trial.name, "overrides": trial.overrides, "force": trial.name in unrecorded}
        return {**fixed, **own, "restore": donors(trial.params, report.there)}

    try:
        if new or search.left:
            ask = partial(search.ask, report.values)
            with closing(Cluster(options, new, ask)) as cluster:
                while cluster.begin(ordered) or search.left:
                    for trial, outcome in cluster.ended():
                        report.event(trial, outcome)
                    report.state(len(cluster.waiting) + search.left, cluster.running.values())
    finally:
        report.there = experiments(commit)
        with rows.store.errors_reported():
            results, address = rows.settle(title, trials.keys(), report.there), rows.url(title)
    complete = report.end(results)
    print(f"\nIn MLflow: {address}")
    if best := next((results[name] for name in report.values() if name in results), None):
        model = rows.store.model_uri(best.info.run_id)
        print(f"The best: make restore RUN={best.info.run_id}, its model is {model}")
    print("All of them, with their files: dvc exp pull origin", flush=True)
    return not complete


if __name__ == "__main__":
    main()
