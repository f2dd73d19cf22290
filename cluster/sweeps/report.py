"""What a sweep prints: a line for each event, one a minute, and a table at the end."""

import time
from collections.abc import Collection, Container
from datetime import timedelta
from typing import Any

from sweeps.repository import Experiments, read
from sweeps.schedule import Running
from sweeps.search import Trial

SHOWN = 20  # trials in the table at the end; MLflow has all of them


class Report:
    """Prints the outcomes of a sweep's trials and keeps them: the experiments and the failures."""

    def __init__(self, metric: str, trials: list[Trial], there: Experiments) -> None:
        self.metric, self.lowest = metric.removeprefix("-"), metric.startswith("-")
        self.trials, self.there = trials, there
        self.failed: dict[str, str] = {}
        self._told = time.monotonic()

    def event(self, trial: Trial, outcome: dict[str, Any]) -> bool:
        """Print what happened to a trial or a node; return whether the trial has ended."""
        status, host, why = outcome["status"], outcome["host"], outcome["message"]
        if status == "dropped":
            print(f"{host} gets no more trials: {why}", flush=True)
        elif status == "again":
            print(f"{trial.name} will be retried; {host}: {why}", flush=True)
        else:
            if status == "failed":
                self.failed[trial.name] = why
            else:
                self.there[trial.name] = read(*outcome["files"])
            where = f"on {host} in {outcome['seconds']:.1f} s"
            print(f"{trial.name} {status} {where}: {why or self._shown(trial)}", flush=True)
        return status in {"done", "failed"}

    def state(self, left: int, running: Collection[Running], every: float = 60) -> None:
        """Print how many trials are in each state, at most once in `every` seconds."""
        now = time.monotonic()
        if now - self._told < every:
            return
        self._told, done = now, sum(trial.name in self.there for trial in self.trials)
        line = f"  {done} done, {len(running)} running, {len(self.failed)} failed, {left} left"
        for trial in self.best_first()[:1]:
            line += f", best {self._shown(trial)}"
        for trial, _, host, since in [*running][:1]:
            line += f", longest {trial.name} on {host}: {timedelta(seconds=round(now - since))}"
        print(line, flush=True)

    def end(self, recorded: Container[str]) -> bool:
        """Show the best trials, those that failed or have no row; return whether there are none."""
        self.state(0, [], every=0)
        lines = [f"\n{'experiment':18} {self.metric}"]
        lines += [f"{trial.name:18} {self._shown(trial)}" for trial in self.best_first()[:SHOWN]]
        faults = [f"{name:18} failed: {why}" for name, why in self.failed.items()]
        unrecorded = [x for x in self.trials if x.name in self.there and x.name not in recorded]
        faults += [f"{trial.name:18} has no row in MLflow" for trial in unrecorded]
        print("\n".join(lines + faults))
        return not faults

    def best_first(self) -> list[Trial]:
        """Return the trials that have the metric, best first."""
        measured = [trial for trial in self.trials if self.value(trial) is not None]
        return sorted(measured, key=self.value, reverse=not self.lowest)

    def value(self, trial: Trial) -> Any:
        """Return a trial's value of the metric, if it has one."""
        there = self.there.get(trial.name)
        return there and there.metrics.get(self.metric)

    def _shown(self, trial: Trial) -> str:
        value = self.value(trial)
        return f"{'-' if value is None else f'{value:.4g}'} ({' '.join(trial.overrides)})"
