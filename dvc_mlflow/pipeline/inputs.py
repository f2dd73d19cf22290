"""Which inputs are data, where commits with the same result differ on it."""

from dataclasses import replace

from .stages import Pipeline, Stage


class Inputs:
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
