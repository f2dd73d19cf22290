"""What the commits that have a result declare of it, united: metrics, plots and models."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from .row import short_digest
from .stages import Model, Pipeline, Plot, Settings, Stage


class Declarations:
    """What several dvc.yaml declare of the same results, by the digests of the stages' results.

    Where two differ on one file, the one that was added last decides.
    """

    def __init__(self) -> None:
        self._metrics: dict[str, set[str]] = defaultdict(set)
        self._plots: dict[str, dict[str, list[Plot]]] = defaultdict(dict)
        self._models: dict[str, dict[str, Model]] = defaultdict(dict)
        self._settings: dict[str, Settings] = {}
        self._decided: dict[Any, tuple[Pipeline, dict[Any, Any]]] = {}

    def add(self, pipeline: Pipeline, digests: Mapping[str, str]) -> None:
        """Add what a pipeline declares of the results with these digests, by stage."""
        for stage in pipeline.stages.values():
            self._settings[stage.group] = stage.settings
            if digest := digests.get(stage.name):
                self._metrics[digest] |= pipeline.metrics_paths(stage)
                self._plots[digest] |= _by_path(pipeline.plots_of(stage))
                self._models[digest] |= {m.path: m for m, _ in pipeline.models_of(stage)}

    def applied(self, pipeline: Pipeline, digests: Mapping[str, str]) -> Pipeline:
        """Return a pipeline with all that is declared of its results.

        How its table and the keys of its metrics look is what was added last, for all results.
        """
        metrics, plots = {*pipeline.metrics}, _by_path(pipeline.plots)
        models = {model.path: model for model in pipeline.models}
        stages = {}
        for name, stage in pipeline.stages.items():
            digest = digests.get(name, "")
            metrics |= self._metrics.get(digest, set())
            plots |= self._plots.get(digest, {})
            models |= self._models.get(digest, {})
            stages[name] = self._as_last(stage)
        found = replace(
            pipeline,
            stages=stages,
            metrics=frozenset(metrics),
            plots=tuple(plot for same in plots.values() for plot in same),
            models=tuple(models.values()),
        )
        # What is decided is shared by all pipelines for which it is the same.
        key = id(pipeline.decided), found.metrics, found.plots, tuple(models)
        _, decided = self._decided.setdefault(key, (pipeline, {}))
        return replace(found, decided=decided)

    def _as_last(self, stage: Stage) -> Stage:
        last, own = self._settings.get(stage.group, stage.settings), stage.settings
        now = replace(own, prefix=last.prefix, columns=last.columns, promote=last.promote)
        return stage if now == own else replace(stage, settings=now)


def shown(pipeline: Pipeline, stages: Iterable[Stage]) -> frozenset[str]:
    """Return what is declared as metrics, plots and models of some stages, as short digests."""
    found: set[object] = set()
    for stage in stages:
        found |= pipeline.metrics_paths(stage)
        found |= {(p.path, p.x, p.template, p.header) for p in pipeline.plots_of(stage)}
        found |= {repr(model) for model, _ in pipeline.models_of(stage)}
    return frozenset(map(short_digest, found))


def shown_model(model: Model) -> str:
    """Return the short digest of a model that is declared."""
    return short_digest(repr(model))


def _by_path(plots: Iterable[Plot]) -> dict[str, list[Plot]]:
    found: dict[str, list[Plot]] = defaultdict(list)
    for plot in plots:
        found[plot.path].append(plot)
    return found


class DataInputs:
    """The inputs that a `.dvc` file tracks, as the first pipeline with the same result has them.

    They are a part of what a result is, and a `.dvc` file that appears later must not make another
    one of it.
    """

    def __init__(self) -> None:
        self._data: dict[object, frozenset[str]] = {}

    def as_first(self, pipeline: Pipeline) -> Pipeline:
        """Return a pipeline with the data of the first one that has the same results."""
        stages = {name: self._as_first(stage) for name, stage in pipeline.stages.items()}
        return replace(pipeline, stages=stages)

    def _as_first(self, stage: Stage) -> Stage:
        outs = tuple((out.path, out.md5) for out in stage.outs)
        deps = tuple((dep.path, dep.md5) for dep in stage.deps)
        own = frozenset(dep.path for dep in stage.deps if dep.is_data)
        data = self._data.setdefault((stage.name, outs, deps, repr(stage.params)), own)
        if data == own:
            return stage
        now = tuple(replace(dep, is_data=dep.path in data) for dep in stage.deps)
        return replace(stage, deps=now)
