"""What a sweep prints: a line for each event, one a minute, and what went wrong at the end."""

import math
import time
from collections.abc import Collection, Mapping, Sequence
from datetime import timedelta
from operator import itemgetter
from typing import Any

from ..errors import ToolError
from .schedule import Running
from .search import Trial


class Report:
    """Prints the outcomes of a sweep's trials, and keeps how they ended."""

    def __init__(self, metric: str, trials: Mapping[str, Trial]) -> None:
        self._metric, self._lowest = metric.removeprefix("-"), metric.startswith("-")
        self._trials = trials
        self.failed: dict[str, str] = {}
        self.metrics: dict[str, Sequence[Mapping[str, float]]] = {}
        """Of the rows of each trial that is done; none, as long as MLflow lacks one."""
        self._told = time.monotonic()

    def event(self, trial: Trial, outcome: dict[str, Any]) -> None:
        """Print what happened to a trial or a node, and keep how the trial ended.

        Raises `ToolError` if its rows have no such metric.
        """
        name, status, on, why = trial.name, *[outcome[k] for k in ("status", "host", "message")]
        other = {"dropped": f"{on} gets no more trials", "again": f"{name} will be retried; {on}"}
        if status == "failed":
            self.failed[name] = why
        elif status == "done":
            known = {key: key for row in self.metrics[name] for key in row}
            if known and self._metric not in known:
                rule = f"must be one of {', '.join(known)}"
                raise ToolError(f"--metric: {rule}; received '{self._metric}'")
            why = self._shown(name)
        what = other.get(status, f"{name} {status} on {on} in {outcome['seconds']:.1f} s")
        print(f"{what}: {why}", flush=True)

    def state(self, left: int, running: Collection[Running], every: float = 60) -> None:
        """Print how many trials are in each state, at most once in `every` seconds."""
        now = time.monotonic()
        if now - self._told < every:
            return
        self._told, done = now, len(self.metrics)
        line = f"  {done} done, {len(running)} running, {len(self.failed)} failed, {left} left"
        for name in [*self.values()][:1]:
            line += f", best {self._shown(name)}"
        for trial, _, host, since in [*running][:1]:
            line += f", longest {trial.name} on {host}: {timedelta(seconds=round(now - since))}"
        print(line, flush=True)

    def end(self) -> bool:
        """Show the trials that failed or have no row; return whether there are none."""
        self.state(0, [], every=0)
        lacking = [name for name, rows in self.metrics.items() if not rows]
        faults = {**self.failed, **dict.fromkeys(lacking, "it has no row in MLflow")}
        for name, why in faults.items():
            print(f"{name} failed: {why}")
        return not faults

    def values(self) -> dict[str, float]:
        """Return the metric of each trial that has it, the best first; of several rows the best."""
        found = {}
        for name, rows in self.metrics.items():
            own = [
                row[self._metric] for row in rows if math.isfinite(row.get(self._metric, math.nan))
            ]
            if own:
                found[name] = (min if self._lowest else max)(own)
        return dict(sorted(found.items(), key=itemgetter(1), reverse=not self._lowest))

    def _shown(self, name: str) -> str:
        value, overrides = self.values().get(name), " ".join(self._trials[name].overrides)
        return f"{'-' if value is None else f'{value:.4g}'} ({overrides})"
