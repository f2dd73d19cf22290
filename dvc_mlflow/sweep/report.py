"""What a sweep prints: a line for each event, its progress, and what went wrong at the end.

In a terminal, the progress is a bar; in a file or a pipe, it is a line once a minute.
"""

import time
from collections.abc import Collection, Mapping, Sequence
from datetime import timedelta
from math import inf, isfinite, nan
from operator import itemgetter
from typing import Any, NamedTuple

from mlflow.entities import Run
from tqdm import tqdm

from ..errors import ToolError
from .schedule import Running
from .search import Trial

_BAR = "{percentage:3.0f}% |{bar:20}| {elapsed} {desc}"


class Score(NamedTuple):
    """A trial's best value of the metric, and the row that has it."""

    value: float
    row: Run
    trial: Trial


class Report:
    """Prints what happens to a sweep's trials, and keeps how they ended."""

    def __init__(self, metric: str, trials: Mapping[str, Trial], total: int) -> None:
        self._metric, self._lowest = metric.removeprefix("-"), metric.startswith("-")
        self._trials = trials
        self.failed: dict[str, str] = {}
        self.rows: dict[str, Sequence[Run]] = {}
        """Of each trial that is done; none while MLflow lacks any of them."""
        self._bar = tqdm(total=total, bar_format=_BAR, leave=False, disable=None)
        self._printed = time.monotonic()

    def close(self) -> None:
        """End the bar; from now on progress is printed as lines."""
        self._bar.close()
        self._bar.disable = True

    def keep(self, trial: Trial, outcome: Mapping[str, Any]) -> None:
        """Keep how a trial has ended; raises `ToolError` if its rows have no such metric."""
        if outcome["status"] == "failed":
            self.failed[trial.name] = outcome["message"]
        elif outcome["status"] == "done":
            known = dict.fromkeys(key for row in self.rows[trial.name] for key in row.data.metrics)
            if self._metric and known and self._metric not in known:
                rule = f"must be one of {', '.join(known)}"
                raise ToolError(f"--metric: {rule}; received '{self._metric}'")

    def show(self, trial: Trial, outcome: Mapping[str, Any]) -> None:
        """Print what has happened to a trial or a node."""
        name, status, on, why = trial.name, *[outcome[k] for k in ("status", "host", "message")]
        took = f"on {on} in {outcome['seconds']:.1f} s"
        log = f" (its log: {on}:{outcome['log']})" if outcome.get("log") else ""
        line = {
            "done": f"{name} done {took}: {self._shown(name)}",
            "failed": f"{self._named(name)} failed {took}: {why}{log}",
            "again": f"{self._named(name)} will be retried; {on}: {why}{log}",
            "dropped": f"{on} gets no more trials: {why}",
        }[status]
        with tqdm.external_write_mode():
            print(line, flush=True)

    def state(self, left: int, running: Collection[Running]) -> None:
        """Show how many trials are in each state: in the bar, or once a minute in a line."""
        now, done = time.monotonic(), len(self.rows)
        if self._bar.disable and now - self._printed < 60:
            return
        line = f"{done} done, {len(running)} running, {len(self.failed)} failed, {left} left"
        if scores := self.scores():
            line += f", best {self._shown(scores[0].trial.name)}"
        for trial, _, host, since in [*running][:1]:
            line += f", longest {trial.name} on {host}: {timedelta(seconds=round(now - since))}"
        self._printed, self._bar.n = now, done + len(self.failed)
        self._bar.set_description_str(line)
        if self._bar.disable:
            print(f"  {line}", flush=True)

    def end(self, elsewhere: Sequence[str] = ()) -> bool:
        """Print which trials failed or have no row, also of another driver; return if none."""
        self._printed = -inf
        self.state(0, [])
        lacking = [name for name, rows in self.rows.items() if not rows]
        for what, names in {"failed": [*self.failed], "without a row in MLflow": lacking}.items():
            if names:
                print(f"{what}: {', '.join(map(self._named, names))}")
        if elsewhere:
            print(f"asked for by another driver, without a result: {', '.join(elsewhere)}")
        return not (self.failed or lacking or elsewhere)

    def scores(self) -> list[Score]:
        """Return the score of each trial that has one, the best first."""
        found = [score for name in self.rows if (score := self._score(name))]
        return sorted(found, key=itemgetter(0), reverse=not self._lowest)

    def values(self) -> dict[str, float]:
        """Return the value of each trial that has one, by name."""
        return {score.trial.name: score.value for score in self.scores()}

    def _score(self, name: str) -> Score | None:
        """Return the score of a trial, if any of its rows has the metric."""
        values = [(row.data.metrics.get(self._metric, nan), row) for row in self.rows.get(name, ())]
        own = [Score(value, row, self._trials[name]) for value, row in values if isfinite(value)]
        return (min if self._lowest else max)(own, key=itemgetter(0), default=None)

    def _shown(self, name: str) -> str:
        score = self._score(name)
        return f"{f'{score.value:.4g}' if score else '-'} {self._params(name)}"

    def _named(self, name: str) -> str:
        return f"{name} {self._params(name)}"

    def _params(self, name: str) -> str:
        return f"({' '.join(self._trials[name].overrides)})"
