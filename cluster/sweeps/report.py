"""What is seen of a sweep: a line for each event, and a table at the end."""

import time
from collections.abc import Sequence
from typing import Any

from sweeps.grid import Trial


class Report:
    """Counts the trials of a sweep and tells how far it is."""

    def __init__(self, trials: Sequence[Trial], metric: str) -> None:
        self._trials = {trial.name: trial for trial in trials}
        self._metric = metric.removeprefix("-")
        self._lowest = metric.startswith("-")
        self._ended: dict[str, dict[str, Any]] = {}
        self._started = time.monotonic()
        self._done_here = 0

    def found(self, name: str, metrics: dict[str, Any]) -> None:
        """Count a trial that had ended before."""
        self._ended[name] = {"status": "found", "metrics": metrics}

    def event(self, outcome: dict[str, Any]) -> None:
        """Count and tell what came of a trial."""
        name, status = outcome["name"], outcome["status"]
        if status != "again":
            self._ended[name] = outcome
            self._done_here += 1
        where = f" on {outcome['host']} in {outcome['seconds']:.1f} s" if "host" in outcome else ""
        said = self._value(outcome) if status != "again" else "begins once more"
        why = f": {outcome['message']}" if outcome.get("message") else ""
        print(f"{name} {status}{where}, {said}{why}", flush=True)

    def state(self, slots: int) -> None:
        """Tell how many trials are where."""
        left = len(self._trials) - len(self._ended)
        running = min(left, slots)
        failed = [o for o in self._ended.values() if o["status"] == "failed"]
        parts = [
            f"{len(self._ended) - len(failed)} done",
            f"{running} running" if slots else "no node",
            f"{len(failed)} failed",
            f"{left - running} left",
        ]
        best = self._best_first()
        if best:
            name = best[0]
            parts.append(f"best {self._value(self._ended[name])} ({self._overrides(name)})")
        if left and self._done_here:
            seconds = (time.monotonic() - self._started) / self._done_here * left
            parts.append(f"about {_duration(seconds)} to go")
        print(f"  {', '.join(parts)}", flush=True)

    def table(self) -> None:
        """Show every trial that ended, the best first."""
        failed = [name for name, o in self._ended.items() if o["status"] == "failed"]
        rows = [("experiment", self._metric, "status", "overrides")]
        rows += [
            (name, self._value(self._ended[name]), self._ended[name]["status"], overrides)
            for name in [*self._best_first(), *failed]
            for overrides in [self._overrides(name)]
        ]
        widths = [max(len(row[i]) for row in rows) for i in range(3)]
        print()
        for row in rows:
            print(*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[3])
        for name in failed:
            print(f"{name}: {self._ended[name]['message']}")

    @property
    def failed(self) -> bool:
        """Whether a trial has failed."""
        return any(outcome["status"] == "failed" for outcome in self._ended.values())

    def _best_first(self) -> list[str]:
        measured = [n for n, o in self._ended.items() if self._metric in o["metrics"]]
        sign = 1 if self._lowest else -1
        return sorted(measured, key=lambda n: sign * self._ended[n]["metrics"][self._metric])

    def _overrides(self, name: str) -> str:
        return " ".join(self._trials[name].overrides)

    def _value(self, outcome: dict[str, Any]) -> str:
        value = outcome["metrics"].get(self._metric)
        return "-" if value is None else f"{value:.4g}"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min" if minutes else f"{rest} s"
