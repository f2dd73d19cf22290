"""What is seen of a sweep: a line for each event, one a minute, and a table at the end."""

import datetime
import time
from collections.abc import Collection
from typing import Any

from sweeps.grid import Trial
from sweeps.schedule import Running

SHOWN = 20
"""Trials in the table at the end; MLflow has all of them."""


class Report:
    """Counts the trials of a sweep and tells how far it is."""

    def __init__(self, metric: str) -> None:
        self.metric, self.lowest = metric.removeprefix("-"), metric.startswith("-")
        self.trials: dict[str, Trial] = {}
        self.ended: dict[str, dict[str, Any]] = {}
        self._started = self._told = time.monotonic()
        self._done_here = 0

    def found(self, trial: Trial, metrics: dict[str, Any]) -> None:
        """Count a trial that had ended before."""
        self.trials[trial.name] = trial
        self.ended[trial.name] = {"status": "found", "metrics": metrics}

    def event(self, outcome: dict[str, Any]) -> Trial | None:
        """Tell what came of a trial, and return it if it has ended; or what came of a node."""
        status, why = outcome["status"], outcome.get("message", "")
        if status == "dropped":
            print(f"{outcome['host']} gets no more trials: {why}", flush=True)
        elif status == "again":
            print(f"{outcome['name']} begins once more; {outcome['host']}: {why}", flush=True)
        elif status != "waiting":
            name = outcome["name"]
            self.ended[name] = outcome
            self._done_here += 1
            where = f"on {outcome['host']} in {outcome.get('seconds', 0):.1f} s"
            print(f"{name} {status} {where}: {why or self._shown(name)}", flush=True)
            return self.trials[name]
        return None

    def state(self, left: int, running: Collection[Running], every: float = 60) -> None:
        """Tell how many trials are where, unless that was told a short time ago."""
        now = time.monotonic()
        if now - self._told < every:
            return
        self._told = now
        n_failed = len(self.failed)
        line = f"  {len(self.ended) - n_failed} done, {len(running)} running, {n_failed} failed"
        line += f", {left} left"
        if best := self.best_first():
            line += f", best {self._shown(best[0])}"
        for one in sorted(running, key=lambda one: one.since)[:1]:
            line += f", longest {one.trial.name} on {one.host}: {_time(now - one.since)}"
        if (left or running) and self._done_here:
            seconds = (now - self._started) / self._done_here * (left + len(running))
            line += f", about {_time(seconds)} to go"
        print(line, flush=True)

    def end(self, unrecorded: Collection[str]) -> None:
        """Show the best trials, those that failed, and those that MLflow has no row of."""
        self.state(0, [], every=0)
        lines = [f"\n{'experiment':18} {self.metric}"]
        lines += [f"{name:18} {self._shown(name)}" for name in self.best_first()[:SHOWN]]
        lines += [f"{name:18} failed: {self.ended[name]['message']}" for name in self.failed]
        lines += [f"{name:18} has no row in MLflow" for name in unrecorded]
        print("\n".join(lines))

    @property
    def failed(self) -> list[str]:
        """The trials that have failed."""
        return [name for name, outcome in self.ended.items() if outcome["status"] == "failed"]

    def best_first(self) -> list[str]:
        """Return the trials that have the metric."""
        values = {name: self.value(name) for name in self.ended}
        measured = [(value, name) for name, value in values.items() if value is not None]
        ordered = sorted(measured, key=lambda one: one[0], reverse=not self.lowest)
        return [name for _, name in ordered]

    def value(self, name: str) -> float | None:
        """Return what a trial has of the metric."""
        value: float | None = self.ended[name]["metrics"].get(self.metric)
        return value

    def _shown(self, name: str) -> str:
        value, overrides = self.value(name), " ".join(self.trials[name].overrides)
        return f"{'-' if value is None else f'{value:.4g}'} ({overrides})"


def _time(seconds: float) -> datetime.timedelta:
    return datetime.timedelta(seconds=round(seconds))
