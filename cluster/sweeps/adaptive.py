"""Adaptive search: Optuna asks for the trials, and the tracking store keeps what it asked for."""

import json
import re
from argparse import Namespace
from typing import Any

from dvc.utils.hydra import to_hydra_overrides
from hydra.core.override_parser.types import IntervalSweep

from bridge.record.store import Store
from sweeps.grid import Trial, make, overrides_read

_REPEATS = 100  # points in a row that were asked for before: nothing is left to ask for


class Adaptive:
    """A study of Optuna's that any driver can continue.

    Each point is written down before it runs, as a tag of the MLflow experiment, and its value is
    that of its DVC experiment. Optuna's own storages are not used: its tables cannot share a
    database with MLflow's, and `mlflow.optuna` drops what it cannot send.
    """

    def __init__(self, options: Namespace, title: str, commit: str, store: Store) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._fixed, self._commit, self._n = options.set_param, commit, options.trials
        self._store, self._tag = store, f"sweep.{title}."
        points = self._points()
        self.left = max(self._n - len(points), 0)
        # Another seed than that of the driver before, which would ask for the same again.
        sampler = optuna.samplers.TPESampler(seed=len(points), constant_liar=True)
        direction = "minimize" if options.metric.startswith("-") else "maximize"
        self._study = optuna.create_study(sampler=sampler, direction=direction)
        self._fail = optuna.trial.TrialState.FAIL
        with overrides_read(options.optuna):
            # Hydra's own Optuna sweeper writes the log as a tag.
            text = [re.sub(r"=log\((.*)\)$", r"=tag(log,interval(\1))", x) for x in options.optuna]
            read = to_hydra_overrides(text)
            self._space = {x.key_or_group: _distribution(optuna.distributions, x) for x in read}
        self.trials: list[Trial] = []
        self._open: dict[str, Any] = {}
        for point in points.values():
            self._study.enqueue_trial(point)
            asked, trial = self._asked()
            self._open[trial.name] = asked
            self.trials.append(trial)

    def ask(self) -> Trial | None:
        """Return a trial that no driver of this search has asked for, if there is one left."""
        if not self.left:
            return None
        known = self._points()  # also of another driver of the same search
        self.left = max(self._n - len(known), 0)
        for _ in range(_REPEATS if self.left else 0):
            asked, trial = self._asked()
            if trial.name not in known:
                key, point = f"{self._tag}{trial.name}", json.dumps(asked.params)
                with self._store.errors_reported():
                    self._store.client.set_experiment_tag(self._store.experiment_id, key, point)
                self.left -= 1
                self._open[trial.name] = asked
                self.trials.append(trial)
                return trial
            self._study.tell(asked, state=self._fail)
        self.left = 0
        return None

    def tell(self, trial: Trial, value: float | None) -> None:
        """Take the result of a trial; none if it has failed."""
        state = self._fail if value is None else None
        self._study.tell(self._open[trial.name], value, state=state, skip_if_finished=True)

    def _asked(self) -> tuple[Any, Trial]:
        asked = self._study.ask(self._space)
        overrides = [f"{key}={value}" for key, value in asked.params.items()]
        return asked, make([*self._fixed, *overrides], self._commit)

    def _points(self) -> dict[str, dict[str, Any]]:
        """Return the points that were asked for, by the trial's name."""
        with self._store.errors_reported():
            tags = self._store.client.get_experiment(self._store.experiment_id).tags
        mine = {key.removeprefix(self._tag): tags[key] for key in tags if key.startswith(self._tag)}
        return {name: json.loads(point) for name, point in mine.items()}


def _distribution(kinds: Any, override: Any) -> Any:
    value = override.value()
    if isinstance(value, IntervalSweep):
        whole = isinstance(value.start, int)
        kind = kinds.IntDistribution if whole else kinds.FloatDistribution
        return kind(value.start, value.end, log="log" in value.tags)
    if not override.is_sweep_override():
        raise ValueError(f"{override.input_line}: one value only, which belongs in -S")
    return kinds.CategoricalDistribution(list(override.sweep_string_iterator()))
