"""What a sweep prints: a line for each event, one a minute, and what went wrong at the end."""

import time
from collections.abc import Collection, Container, Mapping
from datetime import timedelta
from operator import itemgetter
from typing import Any

from bridge.run.errors import StageError
from sweeps.repository import Experiments, read
from sweeps.schedule import Running
from sweeps.search import Trial


class Report:
    """Prints the outcomes of a sweep's trials and keeps them: the experiments and the failures."""

    def __init__(self, metric: str, trials: Mapping[str, Trial], there: Experiments) -> None:
        self._metric, self._lowest = metric.removeprefix("-"), metric.startswith("-")
        self._trials, self.there = trials, there
        self.failed: dict[str, str] = {}
        self._told = time.monotonic()

    def event(self, trial: Trial, outcome: dict[str, Any]) -> None:
        """Print what happened to a trial or a node, and keep how the trial ended.

        Raises `StageError` if it has no such metric.
        """
        name, status, on, why = trial.name, *[outcome[k] for k in ("status", "host", "message")]
        other = {"dropped": f"{on} gets no more trials", "again": f"{name} will be retried; {on}"}
        if status == "failed":
            self.failed[name] = why
        elif status == "done":
            self.there[name] = read(*outcome["files"])
            if self._metric not in (metrics := self.there[name].metrics):
                rule = f"must be one of {', '.join(metrics)}"
                raise StageError(f"--metric: {rule}; received '{self._metric}'")
            why = self._shown(name)
        what = other.get(status, f"{name} {status} on {on} in {outcome['seconds']:.1f} s")
        print(f"{what}: {why}", flush=True)

    def state(self, left: int, running: Collection[Running], every: float = 60) -> None:
        """Print how many trials are in each state, at most once in `every` seconds."""
        now = time.monotonic()
        if now - self._told < every:
            return
        self._told, done = now, len(self._trials.keys() & self.there.keys())
        line = f"  {done} done, {len(running)} running, {len(self.failed)} failed, {left} left"
        for name in [*self.values()][:1]:
            line += f", best {self._shown(name)}"
        for trial, _, host, since in [*running][:1]:
            line += f", longest {trial.name} on {host}: {timedelta(seconds=round(now - since))}"
        print(line, flush=True)

    def end(self, recorded: Container[str]) -> bool:
        """Show the trials that failed or have no row; return whether there are none."""
        self.state(0, [], every=0)
        there = [name for name in self._trials if name in self.there and name not in recorded]
        faults = {**self.failed, **dict.fromkeys(there, "it has no row in MLflow")}
        for name, why in faults.items():
            print(f"{name} failed: {why}")
        return not faults

    def values(self) -> dict[str, float]:
        """Return the metric of each trial that has it, the best first."""
        found = {k: v.metrics.get(self._metric) for k, v in self.there.items() if k in self._trials}
        measured = [(name, value) for name, value in found.items() if value is not None]
        return dict(sorted(measured, key=itemgetter(1), reverse=not self._lowest))

    def _shown(self, name: str) -> str:
        value = self.there[name].metrics[self._metric]
        overrides = " ".join(self._trials[name].overrides)
        return f"{'-' if value is None else f'{value:.4g}'} ({overrides})"
