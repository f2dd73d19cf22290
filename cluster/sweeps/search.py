"""The trials of a sweep: DVC's own expansion of `-S`, or the points that Optuna asks for."""

import hashlib
import json
import re
import tempfile
from argparse import Namespace
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
    asked: Any  # Optuna's own trial, if it has asked for this one


class Search:
    """The trials of a grid, or a study of Optuna's that any driver can continue.

    Each point of a study is written down before it runs, as a tag of the MLflow experiment, and its
    value is that of its DVC experiment. Optuna's own storages are not used: its tables cannot share
    a database with MLflow's, and `mlflow.optuna` drops what it cannot send.
    """

    def __init__(self, options: Namespace, title: str, commit: str, store: Store) -> None:
        self.trials = [] if options.optuna else expand(options.set_param, commit)
        self.left = 0  # how many are still to be asked for
        if not options.optuna:
            return
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._fixed, self._commit, self._n = options.set_param, commit, options.trials
        self._store, self._tag = store, f"sweep.{title}."
        points = self._points()
        self.left = max(self._n - len(points), 0)
        # A new seed for each driver: with an earlier one's, Optuna would suggest the same again.
        sampler = optuna.samplers.TPESampler(seed=len(points), constant_liar=True)
        direction = "minimize" if options.metric.startswith("-") else "maximize"
        self._study = optuna.create_study(sampler=sampler, direction=direction)
        self._fail = optuna.trial.TrialState.FAIL
        # As in Hydra's own Optuna sweeper, log is a tag.
        text = [re.sub(r"=log\((.*)\)$", r"=tag(log,interval(\1))", x) for x in options.optuna]
        spaces, kinds, now = to_hydra_overrides(text), optuna.distributions, flatten(read()[0])
        named = {space.key_or_group: space for space in spaces}
        self._space = {k: _distribution(kinds, space, now.get(k)) for k, space in named.items()}
        make_trial(self._fixed, commit)  # or raise what is wrong with it
        for point in points.values():
            self._study.enqueue_trial(point)
            self.trials.append(self._asked())

    def ask(self) -> Trial | None:
        """Return a trial that no driver of this study has asked for, if there is one left."""
        if not self.left:
            return None
        known = self._points()  # also of another driver
        self.left = max(self._n - len(known), 0)
        for _ in range(_REPEATS if self.left else 0):
            trial = self._asked()
            key, point = f"{self._tag}{trial.name}", json.dumps(trial.asked.params)
            if key not in known:
                with self._store.errors_reported():
                    self._store.client.set_experiment_tag(self._store.experiment_id, key, point)
                self.left -= 1
                self.trials.append(trial)
                return trial
            self.tell(trial, None)
        self.left = 0
        return None

    def tell(self, trial: Trial, value: float | None) -> None:
        """Take the value of a trial, None if it failed."""
        if trial.asked:
            state = self._fail if value is None else None
            self._study.tell(trial.asked, value, state=state, skip_if_finished=True)

    def _asked(self) -> Trial:
        asked = self._study.ask(self._space)
        overrides = [f"{key}={value}" for key, value in asked.params.items()]
        return make_trial([*self._fixed, *overrides], self._commit, asked)

    def _points(self) -> dict[str, dict[str, Any]]:
        """Return the points that were asked for, by their tags."""
        with self._store.errors_reported():
            tags = self._store.client.get_experiment(self._store.experiment_id).tags
        return {key: json.loads(tags[key]) for key in tags if key.startswith(self._tag)}


def make_search(options: Namespace, title: str, commit: str, store: Store) -> Search:
    """Return what the options describe; raises `StageError`, with what is typed in them."""
    try:
        return Search(options, title, commit, store)
    except (DvcException, HydraException, ValueError) as error:
        shown = " ".join(f"'{override}'" for override in options.set_param + options.optuna)
        raise StageError(f"{shown}: {error.__cause__ or error}") from None


def expand(overrides: list[str], commit: str) -> list[Trial]:
    """Return the trials of a grid, in the order in which `dvc exp run --queue` would have them."""
    points = [point[f"{PARAMS}"] for point in get_hydra_sweeps({f"{PARAMS}": overrides})]
    trials = [make_trial(point, commit) for point in points]
    return list({trial.name: trial for trial in trials}.values())


def make_trial(overrides: list[str], commit: str, asked: Any = None) -> Trial:
    """Return the trial of one point."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, PARAMS)
        file.write_text(yaml.safe_dump(read()[0]))
        apply_overrides(file, overrides)
        params, _ = read(file)
    return Trial(f"sweep-{digest([commit, params])}", tuple(overrides), params, asked)


def digest(values: object) -> str:
    """Return a short hash of plain values, the same for 1 and 1.0."""
    plain = json.loads(json.dumps(values, default=str), parse_int=float)
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:12]


def _distribution(kinds: Any, override: Any, now: Any) -> Any:
    """Return a space of whole numbers where the params file has one, as Hydra drops the type."""
    value = override.value()
    if isinstance(value, IntervalSweep):
        whole = isinstance(now, int) and value.start % 1 == value.end % 1 == 0
        kind = kinds.IntDistribution if whole else kinds.FloatDistribution
        return kind(value.start, value.end, log="log" in value.tags)
    return kinds.CategoricalDistribution(list(override.sweep_string_iterator()))
