"""An adaptive search: a study of Optuna's, which suggests the points and stores them."""

import inspect
import os
import re
from argparse import Namespace
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import optuna
from hydra.core.override_parser.types import IntervalSweep
from optuna.trial import TrialState

from ..errors import ToolError
from ..place import main_repository, own_folder
from ..project import Project
from ..project.experiments import PARAMS, parsed, value
from .trials import Trial, digest, trial

_REPEATS = 100  # known points in a row after which the space counts as exhausted


class Search:
    """The trials of a study, in `sweeps.db` in the tool's folder, or where `OPTUNA_STORAGE` says.

    Those that a killed driver left RUNNING are among its `trials`. Raises `ToolError`.
    """

    def __init__(self, project: Project, commit: str, given: Namespace, title: str) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._commit, self._folder = commit, project.folder
        self._space, self._fixed = space(project, given.set_param)
        if not self._space:
            raise ToolError("nothing in -S varies, so there is nothing to search")
        self.varied = [*self._space]
        """The keys of the params that differ between trials."""
        own = f"sqlite:///{own_folder(main_repository())}/sweeps.db"
        self._study = optuna.create_study(
            storage=os.environ.get("OPTUNA_STORAGE") or own,
            study_name=title,
            direction="minimize" if given.metric.startswith("-") else "maximize",
            load_if_exists=True,
        )
        known = self._study.get_trials(deepcopy=False)
        # A study that goes on must not draw the same numbers again.
        self._study.sampler = _sampler(given.sampler, int(digest([title, len(known)])[:8], 16))
        self.trials: dict[str, Trial] = {}
        """Those that were asked for, by name."""
        self._numbers: dict[str, list[int]] = defaultdict(list)  # of its points, by trial
        self._told: dict[str, float | None] = {}
        for each in known:
            if each.state in {TrialState.COMPLETE, TrialState.RUNNING}:
                self._add(each.number, each.params)
        self.left = max(given.n - len(self.trials), 0)
        """How many points may be asked for beside `trials`."""

    def ask(self) -> Trial | None:
        """Return the trial of a point that was not known, if Optuna suggests one."""
        for _ in range(_REPEATS if self.left else 0):
            asked, n = self._study.ask(self._space), len(self.trials)
            found = self._add(asked.number, asked.params)
            if len(self.trials) > n:
                self.left -= 1
                return found
            if found.name in self._told:  # else it is told with the one that runs
                self.tell(found.name, self._told[found.name])
        self.left = 0
        return None

    def tell(self, name: str, value: float | None) -> None:
        """Store the value of a trial's points, or that they have none."""
        state = TrialState.FAIL if value is None else TrialState.COMPLETE
        self._told[name] = value
        for number in self._numbers.pop(name, ()):
            try:  # another driver of this study can have been quicker
                self._study.tell(number, value, state, skip_if_finished=True)
            except RuntimeError:  # so a sampler ends a study of which it knows all points
                self.left = 0

    def _add(self, number: int, params: Mapping[str, Any]) -> Trial:
        point = [f"{key}={each}" for key, each in params.items()]
        found = trial(self._commit, self._folder, [*self._fixed, *point])
        self._numbers[found.name].append(number)
        return self.trials.setdefault(found.name, found)


def space(project: Project, overrides: list[str]) -> tuple[dict[str, Any], list[str]]:
    """Return Optuna's distribution of each key that overrides vary, and the other overrides.

    `log(A,B)` is an interval of which Optuna searches the logarithm. Raises `ProjectError`, and
    `ValueError` if Optuna cannot use it.
    """
    found: dict[str, Any] = {}
    fixed = []
    for given in overrides:
        # As in Hydra's own Optuna sweeper, log is a tag.
        text = re.sub(r"=log\((.*)\)$", r"=tag(log,interval(\1))", given)
        file, override = parsed(text)
        own, values = override.key_or_group, override.value()
        key = own if file == PARAMS else f"{file}:{own}"
        if isinstance(values, IntervalSweep):
            ends: Any = (values.start, values.end)
            kind: Any = optuna.distributions.FloatDistribution
            # Hydra drops the type: whole numbers where the params file has one.
            if isinstance(value(project, file, own), int) and not any(end % 1 for end in ends):
                kind, ends = optuna.distributions.IntDistribution, map(int, ends)
            found[key] = kind(*ends, log="log" in values.tags)
        elif override.is_sweep_override():
            choices = [*override.sweep_string_iterator()]
            found[key] = optuna.distributions.CategoricalDistribution(choices)
        else:
            fixed.append(text)
    return found, fixed


def _sampler(name: str, seed: int) -> optuna.samplers.BaseSampler:
    known = [each for each in optuna.samplers.__all__ if each.endswith("Sampler")]
    if name not in known:
        raise ToolError(f"--sampler: must be one of {', '.join(known)}; received '{name}'")
    kind = getattr(optuna.samplers, name)
    # Points that are still running count as bad ones, so that parallel trials differ.
    own = {"seed": seed, "constant_liar": True}
    takes = inspect.signature(kind).parameters
    try:
        return kind(**{key: own[key] for key in own if key in takes})
    except (TypeError, ImportError) as error:  # it needs more than a seed, or another package
        raise ToolError(f"--sampler: {name}: {error}") from None
