"""An adaptive search: a study of Optuna's, which suggests the points and stores them."""

import inspect
import os
import re
from argparse import Namespace
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import optuna
from hydra.core.override_parser.types import IntervalSweep
from optuna.trial import TrialState

from ..errors import ToolError
from ..place import main_repository, own_folder
from ..project.experiments import PARAMS, parsed
from .points import Points, Trial, digest

_REPEATS = 100  # known points in a row after which the space counts as exhausted


class Search:
    """The trials of a study, in `sweeps.db` in the tool's folder, or where `OPTUNA_STORAGE` says.

    Those that a killed driver left RUNNING are among its `trials`. Raises `ToolError`.
    """

    def __init__(self, given: Namespace, title: str, points: Points) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._points = points
        self._space, self._fixed = space(given.set_param, points)
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
        seed = int(digest([title, len(known)])[:8], 16)
        self._study.sampler = _sampler(given.sampler, seed)
        self.trials: dict[str, Trial] = {}
        """Those that were asked for, by name."""
        self._numbers: dict[str, list[int]] = defaultdict(list)  # of its points, by trial
        self._told: dict[str, float | None] = {}
        begun = [t for t in known if t.state in {TrialState.COMPLETE, TrialState.RUNNING}]
        for each in begun:
            self._add(each.number, each.params)
        self.left = max(given.n - len(self.trials), 0)
        """How many points may be asked for beside `trials`."""

    def ask(self) -> Trial | None:
        """Return the trial of a point that was not known, if Optuna suggests one."""
        for _ in range(_REPEATS if self.left else 0):
            asked, known = self._study.ask(self._space), len(self.trials)
            trial = self._add(asked.number, asked.params)
            asked.set_user_attr("experiment", trial.name)
            if len(self.trials) > known:
                self.left -= 1
                return trial
            if trial.name in self._told:  # else it is told with the one that runs
                self.tell(trial.name, self._told[trial.name])
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
        point = [f"{key}={value}" for key, value in params.items()]
        trial = self._points.trial([*self._fixed, *point])
        self._numbers[trial.name].append(number)
        return self.trials.setdefault(trial.name, trial)


def space(overrides: Sequence[str], points: Points) -> tuple[dict[str, Any], list[str]]:
    """Return Optuna's distribution of each key that overrides vary, and the other overrides.

    `log(A,B)` is an interval of which Optuna searches the logarithm. Raises `ProjectError`, and
    `ValueError` if Optuna cannot use it.
    """
    # As in Hydra's own Optuna sweeper, log is a tag.
    texts = [re.sub(r"=log\((.*)\)$", r"=tag(log,interval(\1))", text) for text in overrides]
    found: dict[str, Any] = {}
    fixed = []
    for text in texts:
        ((file, override),) = parsed([text])
        own, value = override.key_or_group, override.value()
        key = own if file == PARAMS else f"{file}:{own}"
        if isinstance(value, IntervalSweep):
            # Hydra drops the type: whole numbers where the params file has one.
            now: Any = points.content(file)
            for part in own.split("."):
                now = now.get(part) if isinstance(now, dict) else None
            is_whole = isinstance(now, int) and value.start % 1 == 0 and value.end % 1 == 0
            kind = optuna.distributions.IntDistribution
            kind = kind if is_whole else optuna.distributions.FloatDistribution
            start, end = (int(v) if is_whole else v for v in (value.start, value.end))
            found[key] = kind(start, end, log="log" in value.tags)
        elif override.is_sweep_override():
            choices = [*override.sweep_string_iterator()]
            found[key] = optuna.distributions.CategoricalDistribution(choices)
        else:
            fixed.append(text)
    return found, fixed


def _sampler(name: str, seed: int) -> optuna.samplers.BaseSampler:
    kind = getattr(optuna.samplers, name, None)
    if not (inspect.isclass(kind) and issubclass(kind, optuna.samplers.BaseSampler)):
        known = [each for each in optuna.samplers.__all__ if each.endswith("Sampler")]
        raise ToolError(f"--sampler: must be one of {', '.join(known)}; received '{name}'")
    # Points that are still running count as bad ones, so that parallel trials differ.
    own = {"seed": seed, "constant_liar": True}
    takes = inspect.signature(kind).parameters
    try:
        return kind(**{key: value for key, value in own.items() if key in takes})
    except (TypeError, ImportError) as error:  # it needs more than a seed, or another package
        raise ToolError(f"--sampler: {name}: {error}") from None
