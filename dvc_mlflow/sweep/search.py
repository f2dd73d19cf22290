"""The trials of a sweep: DVC's own expansion of `-S`, or the points that Optuna suggests."""

import argparse
import hashlib
import json
import posixpath
import re
from collections.abc import Callable, Container, Mapping, Sequence
from functools import cache, partial
from typing import Any, NamedTuple

from hydra.errors import HydraException

from ..errors import ProjectError, ToolError
from ..pipeline.naming import allowed_key
from ..pipeline.tables import flatten
from ..pipeline.tags import POINTS, SPACE, tagged
from ..project import Project
from ..project.experiments import PARAMS, content, grid, overridden, parsed
from ..store.store import Store

Files = Mapping[str, Mapping[str, Any]]
"""The values of params by file and dotted key."""

_REPEATS = 100  # known points in a row after which the space counts as exhausted


class Trial(NamedTuple):
    """One point of a sweep."""

    name: str  # of its DVC experiment: the same commit and params always have the same name
    overrides: tuple[str, ...]  # as for `dvc exp run -S`
    params: Files  # all of them, overridden or not


class Trials:
    """Makes the trials of one commit, whose params files are those of the working directory."""

    def __init__(self, project: Project, commit: str) -> None:
        self._folder, self._commit = project.folder, commit
        self._content = cache(partial(content, project))
        stages = project.pipeline().stages.values()
        read = {PARAMS, *(params.file for stage in stages for params in stage.params)}
        self.now = {file: flatten(self._content(file)) for file in read if project.text(file)}

    def trial(self, overrides: Sequence[str]) -> Trial:
        """Return the trial of one point."""
        found = overridden(self._content, overrides)
        params = {**self.now, **{file: flatten(values) for file, values in found.items()}}
        changed = {f: v for f, v in found.items() if digest(v) != digest(self._content(f))}
        own = changed.pop(PARAMS, self._content(PARAMS) if PARAMS in self.now else {})
        what = [self._commit, own, *filter(None, (changed, self._folder))]
        return Trial(f"sweep-{digest(what)}", tuple(overrides), params)


class Search:
    """The trials of a grid, or of an Optuna study that any driver can continue.

    MLflow holds the whole study: a point becomes a tag of the MLflow experiment before it runs, and
    its value is in its row. Optuna's own storages are not used: its tables cannot share a database
    with MLflow's, and `mlflow.optuna` drops what it cannot send.
    """

    def __init__(self, given: argparse.Namespace, title: str, make: Trials, store: Store) -> None:
        """Raise `ToolError`, which quotes the options, if no trial could use them."""
        self._given, self._make, self._store = given, make, store
        self._title, self._tag = title, f"{POINTS}{title}."
        self.left = 0  # points that are still to be asked for
        try:
            if given.optuna:
                self._space = _space(given.optuna, make.now)
                self._claim()
                points = self.points()
                # A point that is not used: it only raises what is wrong with the options.
                self._trial(self._study(points, {}).ask(self._space).params)
                self.left = max(given.trials - len(points), 0)
                found = map(self._trial, points.values())
            else:
                found = map(make.trial, grid(given.set_param))
            self.trials = {trial.name: trial for trial in found}
        except (ProjectError, HydraException, ValueError) as error:
            shown = " ".join(f"'{override}'" for override in given.set_param + given.optuna)
            raise ToolError(f"{shown}: {error}") from None

    def ask(self, values: Callable[[], Mapping[str, float]]) -> Trial | None:
        """Return a trial that no driver has asked for, if any is left.

        `values` returns the known values by trial.
        """
        if not self.left:
            return None
        points = self.points()
        study, self.left = self._study(points, values()), max(self._given.trials - len(points), 0)
        for _ in range(_REPEATS if self.left else 0):
            point = study.ask(self._space).params
            trial = self._trial(point)
            if trial.name not in points:
                with self._store.errors_reported():
                    self._store.tag(f"{self._tag}{trial.name}", json.dumps(point))
                self.left -= 1
                self.trials[trial.name] = trial
                return trial
        self.left = 0
        return None

    def _study(self, points: Mapping[str, Any], values: Mapping[str, float]) -> Any:
        """Return Optuna's study of these points; those without a value count as running."""
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        # A number of points is asked at most once, whichever driver asks.
        seed = (self._given.seed << 16) + len(points)
        sampler = optuna.samplers.TPESampler(seed=seed % 2**32, constant_liar=True)
        direction = "minimize" if self._given.metric.startswith("-") else "maximize"
        study = optuna.create_study(sampler=sampler, direction=direction)
        for name, point in points.items():
            value = values.get(name)
            state = optuna.trial.TrialState["RUNNING" if value is None else "COMPLETE"]
            known: dict[str, Any] = {"params": point, "distributions": self._space}
            study.add_trial(optuna.trial.create_trial(state=state, value=value, **known))
        return study

    def _trial(self, point: Mapping[str, Any]) -> Trial:
        overrides = [f"{key}={value}" for key, value in point.items()]
        return self._make.trial([*self._given.set_param, *overrides])

    def points(self) -> dict[str, dict[str, Any]]:
        """Return the points that any driver has asked for, by the names of their trials."""
        found = tagged(self._tags(), self._tag).items()
        # The search `a` has a tag `sweep.a.<trial>`, and the search `a.b` has `sweep.a.b.<trial>`.
        return {name: json.loads(text) for name, text in found if "." not in name}

    def missing(self, rows: Container[str]) -> list[str]:
        """Return the trials of this search that other drivers have asked for and not finished."""
        asked = self.points() if self._given.optuna else {}
        return [name for name in asked if name not in self.trials and name not in rows]

    def _claim(self) -> None:
        """Keep the space of a search with this name; raise `ToolError` if it has another."""
        key, text = f"{SPACE}{self._title}", json.dumps(self._given.optuna)
        if (before := self._tags().get(key)) is None:
            with self._store.errors_reported():
                self._store.tag(key, text)
        elif before != text and _space(json.loads(before), self._make.now) != self._space:
            was = " ".join(json.loads(before))
            raise ToolError(f"--name: '{self._title}' searches {was}; give another space its own")

    def _tags(self) -> dict[str, str]:
        with self._store.errors_reported():
            at = self._store.experiment_id
            return dict(self._store.client.get_experiment(at).tags)


def varied(trials: Sequence[Trial]) -> dict[str, list[Any]]:
    """Return the values of the params that differ between trials, by their keys in MLflow."""
    found = {}
    for file, values in (trials[0].params if trials else {}).items():
        start = "" if file == PARAMS else f"{posixpath.basename(file).rpartition('.')[0]}."
        for key in values:
            own = [trial.params.get(file, {}).get(key) for trial in trials]
            if any(value != own[0] for value in own):
                found[allowed_key(start + key)] = own
    return found


def digest(values: object) -> str:
    """Return a short hash of plain values, the same for 1 and 1.0."""
    plain = json.loads(json.dumps(values, default=str), parse_int=float)
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:12]


def _space(texts: Sequence[str], now: Files) -> dict[str, Any]:
    """Return Optuna's distribution of each key that is searched."""
    from hydra.core.override_parser.types import IntervalSweep
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    # As in Hydra's own Optuna sweeper, log is a tag.
    texts = [re.sub(r"=log\((.*)\)$", r"=tag(log,interval(\1))", text) for text in texts]
    space = {}
    for file, override in parsed(texts):
        own, value = override.key_or_group, override.value()
        key = own if file == PARAMS else f"{file}:{own}"
        if isinstance(value, IntervalSweep):
            # Hydra drops the type: whole numbers where the params file has one.
            is_whole = isinstance(now.get(file, {}).get(own), int)
            is_whole = is_whole and value.start % 1 == value.end % 1 == 0
            kind = IntDistribution if is_whole else FloatDistribution
            space[key] = kind(value.start, value.end, log="log" in value.tags)
        else:
            space[key] = CategoricalDistribution([*override.sweep_string_iterator()])
    return space
