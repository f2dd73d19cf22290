"""The trials of a sweep: DVC's own expansion of `-S`, or the points that Optuna asks for."""

import hashlib
import json
import re
import tempfile
from argparse import Namespace
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml
from dvc.exceptions import DvcException
from dvc.utils.hydra import apply_overrides, get_hydra_sweeps, to_hydra_overrides
from hydra.core.override_parser.types import IntervalSweep
from hydra.errors import HydraException

from bridge.record.store import Store
from bridge.run.errors import StageError
from bridge.run.params import PARAMS, flatten, read

_REPEATS = 100  # known points in a row: the space is taken to be exhausted


class Trial(NamedTuple):
    """One point of a sweep."""

    name: str  # of its DVC experiment: the same commit and the same params always give the same
    overrides: tuple[str, ...]  # as for `dvc exp run -S`
    params: dict[str, Any]  # all of them, overridden or not


class Search:
    """The trials of a grid, or of a study of Optuna's that any driver can continue.

    MLflow and git know all of a study: each point is written down before it runs, as a tag of the
    MLflow experiment, and its value is that of its DVC experiment. Optuna's own storages are not
    used: its tables cannot share a database with MLflow's, and `mlflow.optuna` drops what it cannot
    send.
    """

    def __init__(self, options: Namespace, title: str, commit: str, store: Store) -> None:
        """Raise `StageError`, with what is typed in the options, if no trial could use them."""
        self._options, self._commit, self._store = options, commit, store
        self._tag, self.left = f"sweep.{title}.", 0  # how many points are still to be asked for
        try:
            if options.optuna:
                self._space, points = _space(options.optuna), self._points()
                # Made only to raise what is wrong with the options.
                self._trial(self._study(points, {}).ask(self._space).params)
                self.left = max(options.trials - len(points), 0)
                self.trials = {one.name: one for one in map(self._trial, points.values())}
            else:
                self.trials = expand(options.set_param, commit)
        except (DvcException, HydraException, ValueError) as error:
            shown = " ".join(f"'{override}'" for override in options.set_param + options.optuna)
            raise StageError(f"{shown}: {error.__cause__ or error}") from None

    def ask(self, values: Callable[[], Mapping[str, float]]) -> Trial | None:
        """Return a trial that no driver has asked for, if one is left; `values` are by trial."""
        if not self.left:
            return None
        points = self._points()  # also of another driver
        study, self.left = self._study(points, values()), max(self._options.trials - len(points), 0)
        for _ in range(_REPEATS if self.left else 0):
            point = study.ask(self._space).params
            trial = self._trial(point)
            if (key := self._tag + trial.name) not in points:
                with self._store.errors_reported():
                    at = self._store.experiment_id
                    self._store.client.set_experiment_tag(at, key, json.dumps(point))
                self.left -= 1
                self.trials[trial.name] = trial
                return trial
        self.left = 0
        return None

    def _study(self, points: Mapping[str, Any], values: Mapping[str, float]) -> Any:
        """Return Optuna's study of these points; those without a value count as running."""
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        sampler = optuna.samplers.TPESampler(seed=len(points), constant_liar=True)
        direction = "minimize" if self._options.metric.startswith("-") else "maximize"
        study = optuna.create_study(sampler=sampler, direction=direction)
        for key, point in points.items():
            value = values.get(key.removeprefix(self._tag))
            state = optuna.trial.TrialState["RUNNING" if value is None else "COMPLETE"]
            known: dict[str, Any] = {"params": point, "distributions": self._space}
            study.add_trial(optuna.trial.create_trial(state=state, value=value, **known))
        return study

    def _trial(self, point: Mapping[str, Any]) -> Trial:
        overrides = [f"{key}={value}" for key, value in point.items()]
        return make_trial([*self._options.set_param, *overrides], self._commit)

    def _points(self) -> dict[str, dict[str, Any]]:
        """Return the points that were asked for, by their tags."""
        with self._store.errors_reported():
            tags = self._store.client.get_experiment(self._store.experiment_id).tags
        return {key: json.loads(tags[key]) for key in tags if key.startswith(self._tag)}


def expand(overrides: list[str], commit: str) -> dict[str, Trial]:
    """Return the trials of a grid, in the order in which `dvc exp run --queue` would have them."""
    points = [point[f"{PARAMS}"] for point in get_hydra_sweeps({f"{PARAMS}": overrides})]
    trials = [make_trial(point, commit) for point in points]
    return {trial.name: trial for trial in trials}


def make_trial(overrides: list[str], commit: str) -> Trial:
    """Return the trial of one point."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, PARAMS)
        file.write_text(yaml.safe_dump(read()[0]))
        apply_overrides(file, overrides)
        params, _ = read(file)
    return Trial(f"sweep-{digest([commit, params])}", tuple(overrides), params)


def digest(values: object) -> str:
    """Return a short hash of plain values, the same for 1 and 1.0."""
    plain = json.loads(json.dumps(values, default=str), parse_int=float)
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:12]


def _space(texts: list[str]) -> dict[str, Any]:
    """Return Optuna's distribution of each key that is searched."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    # As in Hydra's own Optuna sweeper, log is a tag.
    texts = [re.sub(r"=log\((.*)\)$", r"=tag(log,interval(\1))", text) for text in texts]
    now, space = flatten(read()[0]), {}
    for override in to_hydra_overrides(texts):
        key, value = override.key_or_group, override.value()
        if isinstance(value, IntervalSweep):
            # Hydra drops the type: whole numbers where the params file has one.
            whole = isinstance(now.get(key), int) and value.start % 1 == value.end % 1 == 0
            kind = IntDistribution if whole else FloatDistribution
            space[key] = kind(value.start, value.end, log="log" in value.tags)
        else:
            space[key] = CategoricalDistribution(list(override.sweep_string_iterator()))
    return space
