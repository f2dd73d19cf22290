"""An adaptive search: a study of Optuna's, which suggests the points and stores them."""

import os
import re
from argparse import Namespace
from typing import Any

import optuna
from hydra.core.override_parser.types import IntervalSweep
from optuna.trial import TrialState

from ..errors import ToolError
from ..place import main_repository, own_folder
from ..project.experiments import PARAMS, parsed, value
from ..project.project import Project
from .trials import Trial, digest, trial

_REPEATS = 100  # known points in a row after which the space counts as exhausted


class Search:
    """The trials of a study, in `sweeps.db` in the tool's folder, or where `OPTUNA_STORAGE` says.

    Those that a killed driver left RUNNING are among its `trials`. Raises `ToolError`.
    """

    def __init__(self, project: Project, commit: str, arguments: Namespace, title: str) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._commit, self._folder = commit, project.folder
        self._space, self._fixed = space(project, arguments.set_param)
        if not self._space:
            raise ToolError("nothing in -S varies, so there is nothing to search")
        here = f"sqlite:///{own_folder(main_repository())}/sweeps.db"
        self._study = optuna.create_study(
            storage=os.environ.get("OPTUNA_STORAGE") or here,
            study_name=title,
            direction="minimize" if arguments.metric.startswith("-") else "maximize",
            load_if_exists=True,
        )
        points = self._study.get_trials(deepcopy=False)
        # A study that goes on must not draw the same numbers again. Points that are still running
        # count as bad ones, so that parallel trials differ.
        seed = int(digest([title, len(points)])[:8], 16)
        self._study.sampler = optuna.samplers.TPESampler(seed=seed, constant_liar=True)
        begun = [t for t in points if t.state in {TrialState.COMPLETE, TrialState.RUNNING}]
        self.trials = {found.name: found for found in map(self._trial, begun)}
        """Those that were asked for, by name."""
        self.left = max(arguments.n - len(self.trials), 0)
        """How many points may be asked for beside `trials`."""

    def ask(self) -> Trial | None:
        """Return the trial of a point that was not known, if Optuna suggests one."""
        for _ in range(_REPEATS if self.left else 0):
            suggested = self._trial(self._study.ask(self._space))
            if suggested.name not in self.trials:  # else its value is told with the other's
                self.trials[suggested.name] = suggested
                self.left -= 1
                return suggested
        self.left = 0
        return None

    def tell(self, name: str, value: float | None) -> None:
        """Store the value of a trial's points, or that they have none."""
        state = TrialState.FAIL if value is None else TrialState.COMPLETE
        for point in self._study.get_trials(deepcopy=False, states=[TrialState.RUNNING]):
            if self._trial(point).name == name:
                self._study.tell(point.number, value, state, skip_if_finished=True)

    def _trial(self, point: Any) -> Trial:
        own = [f"{key}={value}" for key, value in point.params.items()]
        return trial(self._commit, self._folder, [*self._fixed, *own])


def space(project: Project, overrides: list[str]) -> tuple[dict[str, Any], list[str]]:
    """Return Optuna's distribution of each key that overrides vary, and the other overrides.

    `log(A,B)` is an interval of which Optuna searches the logarithm. Raises `ProjectError`, and
    `ValueError` if Optuna cannot use it.
    """
    distributions, fixed = dict[str, Any](), list[str]()
    for given in overrides:
        # As in Hydra's own Optuna sweeper, log is a tag.
        text = re.sub(r"=log\((.*)\)$", r"=tag(log,interval(\1))", given)
        file, override = parsed(text)
        name, values = override.key_or_group, override.value()
        key = name if file == PARAMS else f"{file}:{name}"
        if isinstance(values, IntervalSweep):
            ends: Any = (values.start, values.end)
            kind: Any = optuna.distributions.FloatDistribution
            # Hydra drops the type: whole numbers where the params file has one.
            if isinstance(value(project, file, name), int) and not any(end % 1 for end in ends):
                kind, ends = optuna.distributions.IntDistribution, map(int, ends)
            distributions[key] = kind(*ends, log="log" in values.tags)
        elif override.is_sweep_override():
            choices = [*override.sweep_string_iterator()]
            distributions[key] = optuna.distributions.CategoricalDistribution(choices)
        else:
            fixed.append(text)
    return distributions, fixed
