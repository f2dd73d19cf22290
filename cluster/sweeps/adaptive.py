"""Adaptive search: Optuna asks for the trials, and the tracking store keeps what it asked for."""

import json
import re
from argparse import Namespace
from collections.abc import Mapping
from typing import Any

from dvc.utils.hydra import to_hydra_overrides
from hydra.core.override_parser.types import IntervalSweep

from bridge.record.store import Store
from sweeps.grid import Grid, Trial, digest, make, overrides_read
from sweeps.repository import Experiments

_REPEATS = 100  # points in a row that were asked for before: nothing is left to ask for


class Adaptive:
    """A study of Optuna's that any driver can continue.

    Each point is written down before it runs, as a tag of the MLflow experiment, and its value is
    that of its DVC experiment. Optuna's own storages are not used: its tables cannot share a
    database with MLflow's, and `mlflow.optuna` drops what it cannot send.
    """

    def __init__(self, options: Namespace, commit: str, store: Store, there: Experiments) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        what = [commit, options.optuna, options.set_param, options.metric]
        self.name = f"optuna-{digest(what)}"
        self._fixed, self._commit = options.set_param, commit
        self._store, self._tag = store, f"sweep.{options.name or self.name}."
        self._n: int = options.trials
        metric, space = options.metric.removeprefix("-"), options.optuna
        values = {k: x.metrics[metric] for k, x in there.items() if metric in x.metrics}
        asked = self._asked()
        self._seen, self._again = {*asked}, asked.keys() - values.keys()
        self._open: dict[str, Any] = {}
        self.found: list[Trial] = []
        # Another seed than that of the driver before, which would ask for the same again.
        sampler = optuna.samplers.TPESampler(seed=len(asked), constant_liar=True)
        direction = "minimize" if options.metric.startswith("-") else "maximize"
        self._study = optuna.create_study(sampler=sampler, direction=direction)
        self._fail = optuna.trial.TrialState.FAIL
        with overrides_read(space):
            # Hydra's own Optuna sweeper writes the log as a tag.
            text = [re.sub(r"=log\((.*)\)$", r"=tag(log,interval(\1))", line) for line in space]
            read = to_hydra_overrides(text)
            self._space = {x.key_or_group: _distribution(optuna.distributions, x) for x in read}
            for trial, point in asked.items():
                if trial in self._again:
                    self._study.enqueue_trial(point)
                    continue
                known = {"params": point, "distributions": self._space, "value": values[trial]}
                self._study.add_trial(optuna.trial.create_trial(**known))
                self.found.append(self._trial(point))

    @property
    def left(self) -> int:
        """How many trials are still to be asked for."""
        return max(self._n - len(self._seen), 0) + len(self._again)

    def ask(self) -> Trial | None:
        """Return a trial that nobody has asked for, or that did not end; none if there is none."""
        if self.left:
            self._seen |= self._asked().keys()  # by another driver of the same sweep
        for _ in range(_REPEATS if self.left else 0):
            asked = self._study.ask(self._space)
            trial = self._trial(asked.params)
            if trial.name in self._seen - self._again:
                self._study.tell(asked, state=self._fail)
                continue
            key, client = f"{self._tag}{trial.name}", self._store.client
            with self._store.errors_reported():
                client.set_experiment_tag(self._store.experiment_id, key, json.dumps(asked.params))
            self._seen.add(trial.name)
            self._again.discard(trial.name)
            self._open[trial.name] = asked
            return trial
        self._n = 0
        return None

    def tell(self, trial: Trial, value: float | None) -> None:
        """Take the result of a trial; none if it has failed."""
        state = self._fail if value is None else None
        self._study.tell(self._open.pop(trial.name), value, state=state)

    def _trial(self, point: Mapping[str, Any]) -> Trial:
        overrides = [f"{key}={value}" for key, value in point.items()]
        return make([*self._fixed, *overrides], self._commit)

    def _asked(self) -> dict[str, dict[str, Any]]:
        """Return the points that were asked for, by the trial's name."""
        with self._store.errors_reported():
            tags = self._store.client.get_experiment(self._store.experiment_id).tags
        mine = {key.removeprefix(self._tag): tags[key] for key in tags if key.startswith(self._tag)}
        return {name: json.loads(point) for name, point in mine.items()}


Search = Grid | Adaptive


def _distribution(kinds: Any, override: Any) -> Any:
    value = override.value()
    if isinstance(value, IntervalSweep):
        whole = isinstance(value.start, int)
        kind = kinds.IntDistribution if whole else kinds.FloatDistribution
        return kind(value.start, value.end, log="log" in value.tags)
    if not override.is_sweep_override():
        raise ValueError(f"{override.input_line}: one value only, which belongs in -S")
    return kinds.CategoricalDistribution(list(override.sweep_string_iterator()))
