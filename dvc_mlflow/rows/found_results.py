"""The results of commits and of the checkout: each once, with all that is declared of it."""

from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass, field, replace

from ..errors import ProjectError
from ..pipeline.declarations import Declarations
from ..pipeline.digests import result_digests
from ..pipeline.row_stages import names_recorded, recorded
from ..pipeline.stages import Pipeline, Stage
from ..project import Project
from .history import PipelineAt, Round
from .origin import Origin
from .result import Result, of
from .row_of import standing
from .snapshots import Snapshot

Digests = frozenset[tuple[str, str]]
"""The digests of a result by the stages' names in its row."""


@dataclass
class FoundResult:
    """A result, and the states that have it."""

    best: Origin
    """That of the best standing."""
    result: Result
    """As it is in the state from which its files are read."""
    snapshot: Snapshot | None
    """That state; None for the checkout."""
    is_whole: bool
    """Whether that state declares all its models itself."""
    names: dict[str, None] = field(default_factory=dict)
    """The branches, tags and experiments that have it."""

    def add(self, state: PipelineAt, result: Result, *, is_whole: bool) -> None:
        """Take note of a state that has it, too; they come oldest first."""
        self.names |= dict.fromkeys(state.snapshot.names if state.snapshot else ())
        # The oldest comes first, also where clocks went back.
        if standing(state.origin).rank > standing(self.best).rank:
            self.best = state.origin
        if state.snapshot is None or not self.is_whole:
            self.result, self.snapshot, self.is_whole = result, state.snapshot, is_whole


class FoundResults:
    """Finds the results in rounds of a project's states.

    `now` is the pipeline of the checkout, which decides what is recorded of earlier ones, unless
    stages are `chosen` by name.
    """

    def __init__(self, project: Project, now: Pipeline | None, chosen: Sequence[str]) -> None:
        self._project, self._now, self._chosen = project, now, chosen
        self._searched: set[str] = set()
        """The commits that were searched for stages without a result: rounds share some."""

    def names(self, pipeline: Pipeline) -> Sequence[str]:
        """Return the names of the stages of a pipeline that are recorded."""
        return self._chosen or names_recorded(pipeline, self._now)

    def stages(self, pipeline: Pipeline) -> list[Stage]:
        """Return these stages."""
        return recorded(pipeline, self.names(pipeline))

    def of(self, given: Round) -> dict[Digests, FoundResult]:
        """Return the results of a round, with all that any of its states declares of them.

        Raises `ProjectError` if no state has a stage with a chosen name.
        """
        self._check([state.pipeline for state in given.states])
        declared = Declarations()
        for state in given.states:
            declared.add(state.pipeline, state.digests)
        if self._now:
            declared.add(self._now, {})
        found: dict[Digests, FoundResult] = {}
        for state in given.states:
            if given.digests.isdisjoint(state.digests.values()):
                continue
            pipeline = declared.applied(state.pipeline, state.digests)
            for result in of(self._project, pipeline, state.origin, self.names(pipeline)).results():
                is_meant = {*result.digests.values()} <= given.digests
                if not (is_meant and self._is_own(state, result)):
                    continue
                is_whole = _declares_models(state.pipeline, result)
                new = FoundResult(state.origin, result, state.snapshot, is_whole)
                each = found.setdefault(frozenset(result.digests.items()), new)
                each.add(state, result, is_whole=is_whole)
        for each in found.values():
            origin = each.best._replace(names=[*each.names])
            each.result = replace(each.result, state=replace(each.result.state, origin=origin))
        return found

    def left_out(self, given: Round, told: Set[tuple[str, str]]) -> Iterator[tuple[str, str]]:
        """Yield why numbers of a recorded stage are in no row, and a commit where it is so.

        It has no result, or git has other files than dvc.lock, which is already `told` of some
        results, by digest and path. Each commit is searched once.
        """
        for state in given.states:
            commit = state.snapshot.commit if state.snapshot else ""
            if not commit or state.origin.is_dirty or commit in self._searched:
                continue
            self._searched.add(commit)
            _, reasons = result_digests(state.pipeline)
            for stage in self.stages(state.pipeline):
                why, paths = reasons.get(stage.name), state.pipeline.metrics_paths(stage)
                has_any = stage.has_result or any(self._project.committed(commit, p) for p in paths)
                if why and has_any:
                    yield f"stage {stage.name} is not recorded: {why}", commit
                for out in () if why else (out for out in stage.outs if out.path in paths):
                    is_told = (state.digests[stage.name], out.path) in told
                    if not is_told and self._project.differs(commit, out):
                        other = "not as in dvc.lock; the row has dvc.lock's numbers"
                        yield f"{out.path}: {other}", commit

    def _check(self, pipelines: Sequence[Pipeline]) -> None:
        every = [*pipelines, *([self._now] if self._now else [])]
        stages = [stage for pipeline in every for stage in pipeline.stages.values()]
        known = {name for stage in stages for name in (stage.name, stage.group)}
        for name in self._chosen:
            if name not in known:
                has = f"no stage is named {name!r}; known are {sorted(known)}"
                raise ProjectError(f"--stages: {has}")

    def _is_own(self, state: PipelineAt, result: Result) -> bool:
        """Whether a state is asked for a result: a row's own commit has that row and no other."""
        kept_for = state.snapshot.kept_for if state.snapshot else ()
        return not kept_for or result.head.name in kept_for


def _declares_models(pipeline: Pipeline, result: Result) -> bool:
    """Whether a pipeline itself declares all models of a result, and in the same way."""
    own = [model for stage in pipeline.stages.values() for model, _ in pipeline.models_of(stage)]
    return all(model in own for _, model, _ in result.models())
