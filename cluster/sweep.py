"""Run a grid of DVC experiments on a Ray cluster, or on the cores of this machine.

    python cluster/sweep.py -S 'train.learning_rate=0.001,0.003' -S 'model.units=range(5,30,5)'

What it does, and what it needs on a cluster, is in cluster/README.md.
"""

import argparse
import os
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "stages"))

from bridge.run.errors import TrackingError
from sweeps import METRICS
from sweeps.errors import SweepError
from sweeps.grid import expand
from sweeps.report import Report
from sweeps.repository import Repository
from sweeps.rows import settle
from sweeps.schedule import Cluster


def main() -> None:
    """Parse, expand, run, report."""
    parser = argparse.ArgumentParser(description="Run a grid of DVC experiments on Ray.")
    add = parser.add_argument
    add("-S", "--set-param", action="append", required=True, help="as of `dvc exp run --queue`")
    add("--address", help="of a running Ray cluster, or auto; without, one is started here")
    add("--cpus", type=float, default=1, help="cores of a trial (default: 1)")
    add("--metric", default="accuracy", help="what best is; lowest with a - before it")
    add("--git-remote", default="origin", help="which every node can clone (default: origin)")
    add("--clones", help="folder on each node for its clones (default: in its temporary folder)")
    options = parser.parse_args()
    os.chdir(ROOT)
    try:
        failed = sweep(options)
    except (SweepError, TrackingError) as error:
        sys.exit(f"{error}")
    except KeyboardInterrupt:
        sys.exit("stopped; the same command goes on where this one ended")
    sys.exit(1 if failed else 0)


def sweep(options: argparse.Namespace) -> bool:
    """Run what the git remote does not have yet; return whether a trial has failed."""
    repository = Repository(options.git_remote)
    repository.check()
    trials = expand(options.set_param, repository.commit, ROOT)
    order = {
        "commit": repository.commit,
        "url": repository.url,
        "dvc": repository.dvc(),
        "environment": repository.environment(shared=bool(options.address)),
        "metrics": METRICS,
        "clones": options.clones,
    }
    report = Report(trials, options.metric)
    found = repository.found({trial.name for trial in trials})
    for trial in trials:
        if trial.name in found:
            report.found(trial.name, found[trial.name])
    new = [trial for trial in trials if trial.name not in found]
    print(f"{len(trials)} trials of commit {repository.commit[:7]}, {len(new)} of them new")
    if new:
        with Cluster(options.address) as cluster:
            report.state(cluster.slots(options.cpus))
            for outcome in cluster.run(new, order, options.cpus, wait=60):
                if outcome:
                    report.event(outcome)
                report.state(cluster.slots(options.cpus))
    report.table()
    print(f"\nTo bring all of them here: dvc exp pull {options.git_remote}", flush=True)
    os.environ.update(order["environment"])
    settle({trial.name for trial in trials}, repository.commit)
    return report.failed


if __name__ == "__main__":
    main()
